D=dict(point='family',arm='dense')
s=by['mem-95'].source
i=s.index("The paper's 94 to 95 % on ImageNet"); j=s.index("The paper does\n  not say whether")
best=max(N.rows('accuracy',attack='mlp, chosen',point='fixed per class',arm='dense',level=l).value.mean()*100 for l in ('few','more'))
s=s[:i]+f"""At 1,000 classes the paper's 94 to 95 % on ImageNet are out of reach here; the attack comes near
  them, with {m('accuracy',attack='mlp, chosen',point='fixed per class',arm='dense',level='few')} and {m('accuracy',attack='mlp, chosen',point='fixed per class',arm='dense',level='more')} %, where 10 and 100 classes have ten training images each. """+s[j:]
by['mem-95'].source=s
w=lambda k: W[k]
av={R:'as much by the strongest attack',I_:'a little less by the strongest attack, and whether that is equal is open',F_:'less by the strongest attack'}[w('as-vulnerable-by-the-strongest')]
by['mem-98'].source=f"""## Recap

- A ticket at 80 % sparsity leaks like the dense network by the paper's attack, and {av}.
- Sparser tickets leak less, before they lose much accuracy, and so does every other mask.
- The attack matters more than the network: at 1 % of false accusations the paper's own attack finds one member
  in sixty, the strongest one in five.
- What a study of leakage must show: a low false positive rate, a fresh control, images for each class, an attack that is not starved, and
  controls that fit their members as well."""
s=by['mem-20'].source
old=s[s.index(" at $\\gamma = 2$, its paper's choice"):s.index(" No attack is the best on every network.")]
assert len(old.split())>20
by['mem-20'].source=s.replace(": "+old.strip() if ": "+old.strip() in s else old,".",1) if False else s.replace(old,"",1).replace("as well:","as well.")
by['mem-59'].source+="\n\nRMIA is run at $\\gamma = 2$, its paper's choice, and at $\\gamma = 1$, where fewer scores tie; and in the published tool's way, which takes of the references for each other image the largest half."
s=by['mem-08'].source
i=s.index(" A *random mask* with the ticket's density"); by['mem-08'].source=s[:i]
s=by['mem-01'].source
s=s.replace("""finds equal accuracies, and
concludes that tickets are *equally vulnerable*. This page repeats that, with the error
bars and controls that it lacks, and adds the attacks that the field has learned since.""","""finds equal accuracies, and
concludes that tickets are *equally vulnerable*. This page repeats that with error
bars, controls, and the attacks that the field has learned since.""")
a=s.index(", where the\n  paper trains ResNet-18"); b=s.index("- **Time:**")
s=s[:a]+". The paper's ResNet-18 and ResNet-50 on CIFAR and ImageNet have *not been run*.\n"+s[b:]
by['mem-01'].source=s
