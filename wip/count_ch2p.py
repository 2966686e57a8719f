import sys; sys.path.insert(0,"tests/pages"); sys.path.insert(0,".")
import nbformat,re
from test_main_path import main_path, words, shown
nb=nbformat.read(__import__('os').environ.get('CH2ROOT','.')+'/book/membership.ipynb',4)
tot=0;disp=0
for c in main_path(nb):
    if c.cell_type=='markdown':
        w=words(c.source); tot+=w
        h=[l for l in c.source.splitlines() if l.startswith('#')]
        print(w,h)
    elif shown(c):
        disp+=1; print('   D', c.id, c.metadata.get('mystnb',{}).get('figure',{}).get('name'))
    elif not c.outputs: print('   unrun', c.id)
print(tot,disp)
