import sys; sys.path.insert(0,'/tmp/ch2p')
import nums as N
from nums import m,auc,diff,comp,rows,s,iv
from lottolab.truth import claims
def build(path):
    N.load(path)
    C={c.id:c for c in claims.load()}
    def V(i):
        try: return claims.judge(C['membership-'+i],N.T).word
        except Exception as e: return '??'+type(e).__name__
    D=dict(point='family',arm='dense'); O8=dict(point='family',arm='one-shot',level='ticket'); O95=dict(point='family',arm='one-shot',level='high')
    P95=dict(point='family',arm="partner's mask",level='high')
    X={}
    st=dict(attack='strongest')
    X['mem-01']=f"""- **In short:** at the paper's sparsity of 80 % a ticket leaks hardly less than the dense network: the paper's attack is right in {m('accuracy',attack='mlp',**O8)} against {m('accuracy',attack='mlp',**D)} %, which is equal to two points by test; the strongest attack, chosen on other models, has an AUC of {auc(**st,**O8)} against {auc(**st,**D)}, and that these are equal is *{V('as-vulnerable-by-the-strongest')}*. At 95 % a ticket leaks less ({auc(**st,**O95)}), and a network under a mask that was found on other images leaks {auc(**st,**P95)}. At a false
  positive rate of 1 % the paper's attack finds {m('tpr at 1% fpr',0,attack='mlp',**D)} % of the members of a dense network, the strongest {m('tpr at 1% fpr',0,**st,**D)} %. "More classes leak more" is *{V('classes-fixed-total-unstarved')}* with as many images in all and *{V('classes-per-class-unstarved')}* with as many a class.
- **Corrected:** the first edition judged the number of classes by an attack that we had starved, what a mask knows by a control that fits its members less well, and pruning by LiRA, which is not the strongest attack on sparse networks ([What we got wrong](wrong.md))."""
    c=dict(point='curve',attack='mlp')
    d=lambda net,lev: diff('accuracy',dict(c,network=net,arm='one-shot',level=lev),dict(c,network=net,arm='dense'))[0]
    X['mem-44']=f"""All networks have learned their members by heart, or nearly so, and know 81 to 84 % of other
images: this is the regime of overfitting that membership inference needs. At 80 % sparsity the
ticket is a ticket by the paper's own standard, {diff('nonmember_accuracy',O8,D,flip=True)[0]} below the dense network.
At 95 % it is {diff('nonmember_accuracy',O95,D,flip=True)[0].split(' (')[0]} below, and no longer quite matches. A network under its partner's mask is {m('member_accuracy',**P95)} % right on members and {m('nonmember_accuracy',**P95)} % on others, a ticket {m('member_accuracy',**O95)} and {m('nonmember_accuracy',**O95)} %. Fresh images, from the data set's
official test part, are a little harder than the pool's non-members for all of them."""
    X['mem-47']=f"""The counterpart of the paper's Figures 1 and 2. In {{numref}}`fig-curve` the attack is right for {m('accuracy',0,network='small',arm='dense',**c)} % of
images against the dense networks, stays there up to 80 % sparsity, and falls to {m('accuracy',0,network='small',arm='one-shot',level='highest',**c)} % at
98 %. A rise before that, as in the paper, does not show: with half of the weights removed the difference to the dense
network is {d('small','lowest')} and {d('larger','lowest').replace(' points','')}, which leaves the claim open. The lower panels show
what goes: up to 90 % every member is classified correctly, and beyond that no longer.
Rewinding late instead of resetting changes nothing."""

    st=dict(attack='strongest'); L=dict(attack='lira, online'); T1='tpr at 1% fpr'
    c8=comp('one-shot','ticket','dense',flip=True); p8=comp('one-shot','ticket','dense','auc difference, probit',flip=True,scale=1,d=2,unit='')
    t8=comp('one-shot','ticket','dense','tpr at 1% fpr difference',flip=True); c95=comp('one-shot','high','dense',flip=True)
    X['mem-50']=f"""{{numref}}`fig-attacks` has the answer in each row. Between the dense network and the ticket at 80 %
there is about a point, nearly always in the same direction; between these and the ticket at 95 % there are 2
to 8 points of AUC for the attacks that use references. And the rows differ far more than
the networks do: the paper's attack has an AUC of {auc(d=2,attack='mlp',**D)}, the strongest one of {auc(d=2,**st,**D)}. At a false
positive rate of 1 % it is a different world: the loss, the entropies and the paper's
attack find 1 to 2 % of the members, hardly more than chance, and the strongest finds {m(T1,0,**st,**D)} %. Those who audit a
network with the paper's attack would call it safe where it is not. Which attack is the strongest depends on the network:
LiRA has an AUC of {auc(**L,**D)} on the dense one and {auc(**L,**O95)} on the ticket at 95 %, RMIA at γ = 1 {auc(attack='rmia, online, gamma 1',**D)} and {auc(attack='rmia, online, gamma 1',**O95)}."""
    X['mem-52']=f"""The paper's attack loses {diff('accuracy',dict(attack='mlp',**O8),dict(attack='mlp',**D),flip=True)[0]} at 80 %: equal, by test. Precision and false positive
rate agree too, so that here the equal accuracy *is* at an equal operating point. But look at
that point: the MLP accuses {m('fpr',0,attack='mlp',**D)} % of all non-members.

These intervals are over models of one pool, and too narrow for another. By the wider ones, over models and images, the strongest attack's AUC
is {c8[0]} lower at 80 %, or {p8[0]} on the probit scale, where the margin is 0.05: that it is *equal* is {V('as-vulnerable-by-the-strongest')}. At a false positive rate of 1 %
it finds {t8[0]} fewer members of the ticket, with a margin of two: {V('equal-low-fpr-by-the-strongest')}. At 95 % it loses {c95[0]} of AUC: pruning that far protects."""
    low=lambda k,w: m('tpr at 0.1% fpr',**st,**k)
    X['mem-55']="""In {numref}`fig-roc` the order, by LiRA, is the same everywhere: dense, 80 %, and far below them 95 %."""
    X['mem-57']=f"""At one false accusation in a thousand the strongest attack still finds {low(D,0)} % of the dense
network's members, {low(O8,0)} % of the ticket's and [RANGE] % at 95 % sparsity. (Pooled over all images: how well such a rate holds for a single image was not looked at.)"""
    A=lambda arm: auc(**st,point='family',arm=arm,level='high')
    G=lambda arm: m('member_accuracy',point='family',arm=arm,level='high')
    pm=comp("partner's mask",'high','one-shot'); pr=comp("partner's mask",'high','one-shot','auc difference, probit',scale=1,d=3,unit=''); rm=comp('random mask','high','one-shot',flip=True)
    X['mem-62']=f"""The paper's future work, and its controls. At 95 % sparsity every way of pruning in {{numref}}`fig-treatments` leaks less than the dense network ({auc(**st,**D)}).
Among them iterative pruning leaks most (AUC {A('iterative')}), then one-shot ({A('one-shot')}), the random mask ({A('random mask')}) and the
three methods that prune before training (snip {A('snip')} grasp {A('grasp')} synflow {A('synflow')}). They also fit their members differently:
iterative tickets {G('iterative')} %, one-shot {G('one-shot')} %, random masks {G('random mask')}, SNIP, GraSP and SynFlow 97 to 98.

Does the mask give away whose images chose it? The first edition said so, because a ticket leaked more than a random mask; but that one fits its members
less well. Under the *partner's mask*, found on other images from the same initialisation, the network fits them as well ({G("partner's mask")} %) and leaks {pm[0]} more of AUC than the ticket (probit {pr[0]}). That a mask knows its members is
*{V('mask-knows-its-members')}*, that another's leaks alike *{V('anothers-mask-leaks-alike')}*. (random mask less by {rm[0]})"""
    K=lambda point,level,arm='one-shot',attack='mlp, chosen': m('accuracy',point=point,level=level,arm=arm,attack=attack)
    three=lambda point,**k: ", ".join(K(point,l,**k) for l in ('few','more','most'))
    def cd(point,a,b): return diff('accuracy',dict(point=point,level=a,arm='one-shot',attack='mlp, chosen'),dict(point=point,level=b,arm='one-shot',attack='mlp, chosen'))[0]
    X['mem-65']=f"""The paper's trend in three versions, {{numref}}`fig-classes`, by an attack that is not starved. With 10, 100 and 1,000 classes the attack on a ticket is right for
{three('fixed total')} % with as many images in all ({V('classes-fixed-total-unstarved')}: +{cd('fixed total','more','few')}, then {cd('fixed total','most','more')}); for {three('fixed per class')} % with as many a class ({V('classes-per-class-unstarved')}: {cd('fixed per class','more','few')}, {cd('fixed per class','most','more')});
and for {three('same images')} % on the same images ({V('classes-same-images-unstarved')}: {cd('same images','more','few')}, {cd('same images','most','more')}).

The first edition called the trend refuted in all three. It was our attack that failed at 1,000 classes: capped at 1,000 examples, in the order of the classes, it is right for
{K('same images','most','dense','mlp')} % of the same images against dense networks; with all examples for {K('same images','most','dense','mlp, all')} %, and with the ten largest confidences sorted for {K('same images','most','dense','mlp, all, sorted')} %.
loss: {[m('accuracy',point=p,level=l,arm='dense',attack='loss threshold') for p in ('fixed total','fixed per class','same images') for l in ('few','more','most')]}
tickets minus dense at 100/1000: {diff('accuracy',dict(point='fixed total',level='more',arm='one-shot',attack='mlp, chosen'),dict(point='fixed total',level='more',arm='dense',attack='mlp, chosen'))[0]} {V('equal-hundred-unstarved')} ; {diff('accuracy',dict(point='fixed per class',level='most',arm='one-shot',attack='mlp, chosen'),dict(point='fixed per class',level='most',arm='dense',attack='mlp, chosen'))[0]} {V('equal-thousand-unstarved')}"""
    tr=lambda a,b,t: diff('accuracy',dict(point='transfer',source=a,target=t),dict(point='transfer',source=b,target=t))[0]
    X['mem-75']=f"""The counterpart of Figure 4. In {{numref}}`fig-transfer` columns differ and lines hardly do: it is the target that
decides. Up to 90 % sparsity an attack that was learned on any of these networks works on any other, of either
architecture, within a point or two. The paper's diagonal, that an attack does best where it was learned, is there for pruned targets, which the first edition denied: at 95 % an attack that was learned on
such a ticket is {tr('small, high','small, dense','small, high')} better than one learned on the dense network, and {tr('larger, high','larger, dense','larger, high').replace(' points','')} for the larger one. Between architectures no difference is shown, so that the claim is {V('transfer-diagonal-when-pruned')}. {tr('small, dense','larger, dense','small, dense')} {tr('small, high','larger, high','small, high')} {tr('larger, dense','small, dense','larger, dense')} {tr('larger, high','small, high','larger, high')}
Attacks that were learned on very sparse networks are worse (at 98 %, by {tr('small, highest','small, lowest','small, dense')} and {tr('larger, highest','larger, lowest','larger, dense')})."""
    ap=lambda arm,sh,at='shadow': m('accuracy',point='apart',arm=arm,shadows=sh,attack=at)
    X['mem-77']=f"""Nobody needs the target's members: attacks learned on four shadow models, none of whose images is in the target's pool, are [{diff('accuracy',dict(point='apart',arm='dense',shadows='dense',attack='shadow'),dict(attack='mlp',**D))[0]} dense {diff('accuracy',dict(point='apart',arm='one-shot',shadows='one-shot',attack='shadow'),dict(attack='mlp',**O8))[0]} ticket, {V('shadows-apart')}] as the one
that was learned on the target. One attack a class is the best of them ({ap('dense','dense','shadow, per class')} % ). And the attacker need not know that the target was pruned: learned on *dense* shadow models the
attack on tickets is {diff('accuracy',dict(point='apart',arm='one-shot',shadows='dense',attack='shadow'),dict(point='apart',arm='one-shot',shadows='one-shot',attack='shadow'))[0]} better than one that was learned on tickets ({V('pruning-unknown-apart')})."""
    S=lambda net,lev,at,arm='one-shot': dict(point='samples',network=net,level=lev,attack=at,arm=arm)
    X['mem-70']=f"""mlp half->most small {diff('accuracy',S('small','most','mlp'),S('small','half','mlp'))[0]} larger {diff('accuracy',S('larger','most','mlp'),S('larger','half','mlp'))[0]}; sorted small {diff('accuracy',S('small','most','mlp, sorted'),S('small','half','mlp, sorted'))[0]} larger {diff('accuracy',S('larger','most','mlp, sorted'),S('larger','half','mlp, sorted'))[0]} {V('samples-saturate-sorted')}; sorted acc {m('accuracy',**S('small','most','mlp, sorted'))} {m('accuracy',**S('small','half','mlp, sorted'))} mlp {m('accuracy',**S('small','most','mlp'))} {m('accuracy',**S('small','half','mlp'))} larger sorted {m('accuracy',**S('larger','most','mlp, sorted'))}"""
    X['verdicts']="\n".join(f"{V(i.removeprefix('membership-'))} | {i}" for i in C if i.startswith('membership-'))
    a2=[("iterative","high","one-shot"),("snip","high","one-shot"),("grasp","high","one-shot"),("synflow","high","one-shot")]
    X['pruned probit']="\n".join(str(k)+' '+comp(*k,'auc difference, probit',scale=1,d=3,unit='')[0]+' | auc '+comp(*k)[0] for k in a2)
    return X,V
if __name__=='__main__':
    X,V=build(sys.argv[1])
    for k,v in X.items(): print('###',k); print(v)
