"""The kernel that runs the chapters."""

from ipykernel.kernelspec import get_kernel_dict
from jupyter_client.kernelspec import KernelSpec
from jupyter_client.manager import AsyncKernelManager


class Kernel(AsyncKernelManager):
    """Start the Python that runs this, whatever else Jupyter finds as `python3`."""

    @property
    def kernel_spec(self) -> KernelSpec:
        """Return how ipykernel starts in this Python."""
        return KernelSpec(**get_kernel_dict())
