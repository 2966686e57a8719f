"""Build final texts from the table; print word counts. usage: final.py TABLE"""
import sys; sys.path.insert(0,'/tmp/ch2p'); sys.path.insert(0,'/work/wt/ch2-page')
import nums as N
from nums import m,auc,diff,comp,rows,s,iv
from lottolab.truth import claims
R,F_,I_='reproduced','refuted','inconclusive'
def build(path):
    N.load(path)
    C={c.id.removeprefix('membership-'):c for c in claims.load() if c.chapter=='membership'}
    W={}
    for k,c in C.items():
        try: W[k]=claims.judge(c,N.T).word
        except Exception as e: W[k]='??'
    V=lambda k: W[k]
    D=dict(point='family',arm='dense'); O8=dict(point='family',arm='one-shot',level='ticket'); O95=dict(point='family',arm='one-shot',level='high')
    P95=dict(point='family',arm="partner's mask",level='high'); st=dict(attack='strongest'); L=dict(attack='lira, online'); T1='tpr at 1% fpr'
    g1='rmia, online, gamma 1'
    short=lambda x: x.replace(' points','')
    comma=lambda x: x.replace(' (',', ').replace(')','')
    X={}
    K=lambda point,level,arm='one-shot',attack='mlp, chosen',d=1: m('accuracy',d,point=point,level=level,arm=arm,attack=attack)
    three=lambda point,**k: "{}, {} and {}".format(*[K(point,l,**k) for l in ('few','more','most')])
    def cd(point,a,b): return diff('accuracy',dict(point=point,level=a,arm='one-shot',attack='mlp, chosen'),dict(point=point,level=b,arm='one-shot',attack='mlp, chosen'))[0]
    c8=comp('one-shot','ticket','dense',flip=True); p8=comp('one-shot','ticket','dense','auc difference, probit',flip=True,scale=1,d=3,unit='')
    t8=comp('one-shot','ticket','dense','tpr at 1% fpr difference',flip=True); c95=comp('one-shot','high','dense',flip=True)
    pm=comp("partner's mask",'high','one-shot'); rm=comp('random mask','high','one-shot',flip=True); pp=comp("partner's mask",'high','one-shot','auc difference, probit',scale=1,d=3,unit='')
    eq8={R:'equal by test there too',I_:'whether that is equal is *inconclusive*',F_:'which is *not* equal by test','??':'??'}[V('as-vulnerable-by-the-strongest')]
    cl=lambda k: V(f'classes-{k}-unstarved')
    X['mem-01']=f"""- **In short:** at the paper's sparsity of 80 % the paper's attack is right for {m('accuracy',attack='mlp',**O8)} % of images against a ticket and {m('accuracy',attack='mlp',**D)} against the dense network, equal by test; the strongest attack, chosen on other models, has an AUC of {auc(**st,**O8)} against {auc(**st,**D)}; {eq8}. At 95 % a ticket leaks less ({auc(**st,**O95)}); that its mask knows its members is {V('mask-knows-its-members')}. At a false
  positive rate of 1 % the paper's attack finds {m(T1,0,attack='mlp',**D)} % of the members of a dense network, the strongest {m(T1,0,**st,**D)} %. "More classes leak more" is {cl('fixed-total')} with as many images in all, {cl('same-images')} on the same images, {cl('per-class')} with as many a class.
- **Corrected:** the first edition judged the number of classes by an attack that we had starved, a mask by a control that fits its members less well, and pruning by LiRA as the strongest attack ([What we got wrong](wrong.md)).
"""
    c=dict(point='curve',attack='mlp')
    d=lambda net,lev: diff('accuracy',dict(c,network=net,arm='one-shot',level=lev),dict(c,network=net,arm='dense'))[0]
    X['mem-44']=f"""All networks have learned their members by heart, or nearly so, and know 81 to 84 % of other
images: this is the regime of overfitting that membership inference needs. At 80 % sparsity the
ticket is a ticket by the paper's own standard, {diff('nonmember_accuracy',O8,D,flip=True)[0]} below the dense network.
At 95 % it is more than a point below, and no longer quite matches. Under its partner's mask a network is right for {m('member_accuracy',**P95)} % of its members and {m('nonmember_accuracy',**P95)} % of others, a ticket for {m('member_accuracy',**O95)} and {m('nonmember_accuracy',**O95)} %. Fresh images, from the data set's
official test part, are a little harder than the pool's non-members for all of them."""
    X['mem-47']=f"""The counterpart of the paper's Figures 1 and 2. In {{numref}}`fig-curve` the attack is right for {m('accuracy',0,network='small',arm='dense',**c)} % of
images against the small dense network, stays near that up to 80 % sparsity, and falls to {m('accuracy',0,network='small',arm='one-shot',level='highest',**c)} % at
98 %. A rise before that, as in the paper, does not show: with half of the weights removed the difference to the dense
network is {d('small','lowest')} and {short(d('larger','lowest'))}, which leaves the claim {'open' if V('sparsity-rises')==I_ else V('sparsity-rises')}. The lower panels show
what goes: up to 90 % every member is classified correctly, and beyond that no longer.
Rewinding late instead of resetting changes nothing."""
    X['mem-50']=f"""{{numref}}`fig-attacks` has the answer in each row. Between the dense network and the ticket at 80 %
there is about a point; between these and the ticket at 95 % there are 2
to 8 points of AUC for the attacks that use references. And the rows differ far more than
the networks do: the paper's attack has an AUC of {auc(d=2,attack='mlp',**D)}, the strongest one of {auc(d=2,**st,**D)}. At a false
positive rate of 1 % it is a different world: the loss, the entropies and the paper's
attack find 1 to 2 % of the members, hardly more than chance, and the strongest finds {m(T1,0,**st,**D)} %. Those who audit a
network with the paper's attack would call it safe where it is not.

The first edition took LiRA for the strongest. It is on no ticket at 95 %: its AUC is {auc(**L,**O95)} there, that of RMIA at γ = 1 {auc(attack=g1,**O95)} (dense network: {auc(**L,**D)} and {auc(attack=g1,**D)})."""
    X['mem-52']=f"""The paper's attack loses {diff('accuracy',dict(attack='mlp',**O8),dict(attack='mlp',**D),flip=True)[0]} at 80 %: equal, by test. Precision and false positive
rate agree too, so that here the equal accuracy *is* at an equal operating point. But look at
that point: the MLP accuses {m('fpr',0,attack='mlp',**D)} % of all non-members.

These intervals are over models of one pool, and too narrow for another. The strongest attack is judged by wider ones, over models and images: at 80 % its AUC
is {c8[0]} lower, on the probit scale {p8[0]} with a margin of 0.05, and at a false positive rate of 1 %
it finds {t8[0]} fewer members, with a margin of two: *equally vulnerable* is {V('as-vulnerable-by-the-strongest')} in AUC and {V('equal-low-fpr-by-the-strongest')} there. At 95 % it loses {c95[0]} of AUC: that this protects is {V('sparsity-protects-by-the-strongest')}."""
    low=lambda k: m('tpr at 0.1% fpr',**st,**k)
    l95=[N.rows('tpr at 0.1% fpr',attack='strongest',point='family',level='high',arm=a).value.mean()*100 for a in ('iterative','one-shot','random mask','snip','grasp','synflow',"partner's mask")]
    X['mem-55']="""In {numref}`fig-roc` the order, by LiRA, is the same everywhere: dense, 80 %, and far below them 95 %."""
    X['mem-57']=f"""At one false accusation in a thousand the strongest attack still finds {low(D)} % of the dense
network's members, {low(O8)} % of the ticket's and {min(l95):.1f} to {max(l95):.1f} % at 95 % sparsity. Such a rate is pooled over images; how well it holds for each single one was not looked at."""
    A=lambda arm: auc(**st,point='family',arm=arm,level='high')
    G=lambda arm: m('member_accuracy',point='family',arm=arm,level='high')
    pre=sorted(float(A(a)) if A(a)!='??' else 0 for a in ('snip','grasp','synflow'))
    mk={R:'reproduced',I_:'*inconclusive*',F_:'*refuted*','??':'??'}
    X['mem-62']=f"""The paper's future work, and its controls. At 95 % sparsity every way of pruning in {{numref}}`fig-treatments` leaks less than the dense network.
Iterative pruning leaks most (AUC {A('iterative')}), then one-shot ({A('one-shot')}), the partner's mask ({A("partner's mask")}), the random mask ({A('random mask')}) and the
three methods that prune before training ({pre[0]:.3f} to {pre[-1]:.3f}). They also fit their members differently:
iterative tickets all of them, one-shot {G('one-shot')} %, random masks {G('random mask')}, SNIP, GraSP and SynFlow 97 to 98.

Does the mask give away whose images chose it? The first edition said so, because a ticket leaked more than a random mask; but under that one a network fits its members
less well. Under the partner's mask, found on *other* images, it fits {G("partner's mask")} % of them, and the AUC differs from the ticket's by {pm[0]}. That a mask knows its members is
{mk[V('mask-knows-its-members')]}; that another's mask leaks alike, to a margin, is {mk[V('anothers-mask-leaks-alike')]}."""
    lt=lambda point: "{}, {} and {} %".format(*[m('accuracy',0,point=point,level=l,arm='dense',attack='loss threshold') for l in ('few','more','most')])
    X['mem-65']=f"""{{numref}}`fig-classes` shows the paper's trend in three versions, by an attack that is not starved. With 10, 100 and 1,000 classes it is right against tickets for

- {three('fixed total')} % with as many images in all: {cd('fixed total','more','few')} more at 100 classes, then {cd('fixed total','most','more')} at 1,000; *{cl('fixed-total')}*;
- {three('fixed per class')} % with as many images a class: {cd('fixed per class','more','few')}, then {cd('fixed per class','most','more')}; *{cl('per-class')}*;
- {three('same images')} % on the same images: {cd('same images','more','few')}, then {cd('same images','most','more')}; *{cl('same-images')}*.

The first edition called the trend refuted in all three. At 1,000 classes it was our attack that failed: capped at 1,000 examples, in the order of the classes, it is right for
{K('same images','most','dense','mlp')} % of the same images against dense networks, with all examples for {K('same images','most','dense','mlp, all')}, and with the ten largest confidences, sorted, for {K('same images','most','dense','mlp, all, sorted')}. A threshold on the label's loss,
which is in no claim, has {lt('same images')} there."""
    tr=lambda a,b,t,f=False: diff('accuracy',dict(point='transfer',source=a,target=t),dict(point='transfer',source=b,target=t),flip=f)[0]
    X['mem-75']=f"""The counterpart of Figure 4. In {{numref}}`fig-transfer` columns differ and lines hardly do: it is the target that
decides. Up to 90 % sparsity an attack that was learned on any of these networks works on any other, of either
architecture, within a point or two. The paper's diagonal, that an attack does best
where it was learned, is there for pruned targets, which the first edition denied: at 95 % an attack that was learned on the ticket is {tr('small, high','small, dense','small, high')} and {short(tr('larger, high','larger, dense','larger, high'))} better than one that was learned on the dense network. Against the other architecture it is {V('transfer-diagonal-when-pruned')}. Attacks learned on tickets at 98 % are worse, by {short(tr('small, highest','small, lowest','small, dense',True))} and {tr('larger, highest','larger, lowest','larger, dense',True)}."""
    ap=lambda arm,sh,at='shadow': m('accuracy',point='apart',arm=arm,shadows=sh,attack=at)
    X['mem-77']=f"""Nobody needs the target's members: attacks learned on four shadow models that share no image with the target's pool are {diff('accuracy',dict(point='apart',arm='dense',shadows='dense',attack='shadow'),dict(attack='mlp',**D))[0]} more accurate against the dense network than the one
that was learned on the target, and {short(diff('accuracy',dict(point='apart',arm='one-shot',shadows='one-shot',attack='shadow'),dict(attack='mlp',**O8))[0])} against the ticket ({V('shadows-apart')}); there are more examples to learn from. One attack a class is right for {ap('dense','dense','shadow, per class')} %, the one on the three largest confidences for {ap('dense','dense','shadow, top 3')}. And the attacker need not know that the target was pruned: learned on *dense* shadow models the
attack differs on tickets by {diff('accuracy',dict(point='apart',arm='one-shot',shadows='dense',attack='shadow'),dict(point='apart',arm='one-shot',shadows='one-shot',attack='shadow'))[0]} from one that was learned on tickets ({V('pruning-unknown-apart')})."""
    S=lambda net,lev,at,arm='one-shot': dict(point='samples',network=net,level=lev,attack=at,arm=arm)
    sd=lambda net: diff('accuracy',S(net,'most','mlp, sorted'),S(net,'half','mlp, sorted'))[0]
    ud=lambda net: diff('accuracy',S(net,'most','mlp'),S(net,'half','mlp'))[0]
    X['mem-70']=f"""The counterpart of Figure 3. From 100 to 2,000 examples the attack gains 10 points on both networks ({{numref}}`fig-examples`), and in the order of the classes
it has not levelled off. With the confidences sorted, which no figure here shows, the last doubling brings {sd('small')} on the small network and {short(sd('larger'))} on the larger: that the attack saturates is {V('samples-saturate-sorted')}. An attack that has few examples says little
about the network."""
    mf=diff('accuracy',dict(point='classifiers',arm='dense',attack='mlp'),dict(point='classifiers',arm='dense',attack='forest'))[0]
    ms=diff('accuracy',dict(point='classifiers',arm='dense',attack='mlp'),dict(point='classifiers',arm='dense',attack='svm'))[0]
    X['mem-72']=f"""The MLP beats the support vector machine by {ms}; against the random forest the difference is {mf}, so that it is the best of them is {V('mlp-best')}. But a **threshold on the
loss**, one number, is more accurate than all of them. It knows the label, which the
confidence vector alone does not say; but that is not the whole of it, for the two-branch network knows the label too, and does no better than the MLP with so few
examples. What the paper's text calls stochastic gradient descent has learned
nothing here in 200 rounds."""
    eh=diff('accuracy',dict(point='fixed total',level='more',arm='one-shot',attack='mlp, chosen'),dict(point='fixed total',level='more',arm='dense',attack='mlp, chosen'))[0]
    et=diff('accuracy',dict(point='fixed per class',level='most',arm='one-shot',attack='mlp, chosen'),dict(point='fixed per class',level='most',arm='dense',attack='mlp, chosen'))[0]
    ap_=lambda a: comp(a,'high','one-shot','auc difference, probit',scale=1,d=2,unit='')[0]
    frag={
     'classes-fixed-total-unstarved':f"**More classes, more leakage**, with as many images in all: {cd('fixed total','more','few')} at 100, then {short(cd('fixed total','most','more'))} at 1,000.",
     'classes-same-images-unstarved':f"**The same, on the same images**: {cd('same images','more','few')}, then {short(cd('same images','most','more'))}.",
     'classes-per-class-unstarved':f"**The same, with as many images a class**: {cd('fixed per class','more','few')}, then {short(cd('fixed per class','most','more'))}.",
     'ten-is-chance-unstarved':f"**With ten classes no better than a coin**: {m('accuracy',attack='mlp',**D)} % on clothes, {K('fixed total','few','dense')} on glyphs.",
     'flat-over-sparsities':f"**About as accurate whatever the sparsity**: at 90 % the small network has {d('small','middle')}, the larger {short(d('larger','middle'))}.",
     'any-pruning-leaks-alike-by-the-strongest':f"**The way of pruning does not matter** at 95 %: on the probit scale, with a margin of 0.05, {ap_('iterative')} iterative, {ap_('snip')} SNIP, {ap_('grasp')} GraSP, {ap_('synflow')} SynFlow.",
     'equal-hundred-unstarved':f"**Equal on 100 classes**: {eh}.",
     'equal-thousand-unstarved':f"**Equal on 1,000 classes**: {et}.",
     'as-vulnerable-by-the-strongest':f"**As vulnerable, by the strongest attack**: {p8[0]} less on the probit scale.",
     'equal-low-fpr-by-the-strongest':f"**As many found at 1 % of false accusations**: {t8[0]} fewer.",
     'sparsity-rises':f"**Moderate pruning makes the attack more accurate**: see above.",
     'larger-leaks-more':"**The deeper network leaks more**: our two are too alike.",
     'transfer-diagonal-when-pruned':f"**An attack does best where it was learned**: by {tr('small, dense','larger, dense','small, dense')} and {short(tr('larger, dense','small, dense','larger, dense'))} on dense networks, against the other architecture's.",
     'samples-saturate-sorted':f"**Examples saturate**: {sd('small')}, {short(sd('larger'))}.",
     'mlp-best':f"**The MLP is the best classifier**: {mf} before a random forest.",
     'mask-knows-its-members':f"**A mask knows its members**: {pm[0]} under another's.",
     'anothers-mask-leaks-alike':f"**Another's mask leaks alike**: {pp[0]} on the probit scale.",
     'confound':f"**Nobody notices a confounded attack**: {diff('accuracy',dict(point='confound',arm='dense',attack='confounded'),dict(c,network='small',arm='dense'))[0]} more accurate than the honest one.",
     'shadows-apart':'**Shadows apart**: ??','pruning-unknown-apart':'**Pruning unknown**: ??','sparsity-protects-by-the-strongest':'**95 % protects**: ??'}
    bul=lambda w: "\n".join(f"- {t}" for k,t in frag.items() if V(k)==w)
    miss=[k for k in W if V(k) in (F_,I_,'??') and k not in frag]
    nopen=sum(V(k)==I_ for k in frag); classes=[k for k in frag if k.startswith('classes-')]
    gone=[{'fixed-total':'as many images in all','same-images':'the same images','per-class':'as many images a class'}[k.removeprefix('classes-').removesuffix('-unstarved')] for k in classes if V(k)==F_]
    both="".join(f"- {t_}\n" for k,t_ in frag.items() if V(k)==F_ and k not in classes)
    if gone: both="- **More classes, more leakage**, with "+", ".join(gone)+": the numbers are above.\n"+both
    X['mem-95']=f"""## What did not reproduce, and limits

A claim is refuted when one of its tests is. *Refuted*, in the part that fails:

{both}
*Inconclusive* are {nopen} more, where an interval is too wide for either verdict.

### Details: what is inconclusive

{bul(I_)}

"""
    X['missing']=str(miss)
    X['verdicts']="\n".join(f"{w} | {k}" for k,w in W.items())
    X['pct']=f"{100*(1)}"
    return X,W
if __name__=='__main__':
    X,W=build(sys.argv[1])
    for k,v in X.items(): print('###',k,len(v.split())); print(v)
