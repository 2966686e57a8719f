import pandas as pd,numpy as np
t=pd.read_csv('/tmp/ch2p/old.csv',keep_default_na=False,na_values=[''])
t['against']=t.get('against'); 
new=[]
f=t[t.point=='family']
l=f[f.attack=='lira, online']; new+=[l.assign(attack='strongest',chosen='lira, online'),f[f.attack=='rmia, online'].assign(attack='rmia, online, gamma 1')]
p=f[(f.arm=='random mask')&(f.level=='high')]; new+=[x.assign(arm="partner's mask") for x in (p,p[p.attack=='lira, online'].assign(attack='strongest'))]
for d in ('fixed total','fixed per class','same images'):
    x=t[(t.point==d)&(t.attack=='mlp')]
    new+=[x.assign(attack=a) for a in ('mlp, chosen','mlp, all','mlp, all, sorted')]
x=t[(t.point=='samples')&(t.attack=='mlp')&(t.arm=='one-shot')]; new.append(x.assign(attack='mlp, sorted'))
new.append(t[t.point=='shadows'].assign(point='apart'))
base=t.iloc[[0]].assign(attack=np.nan,point='compared',seed=0)
for arm,level,ag,v in [('one-shot','ticket','dense',-.011),('one-shot','high','dense',-.06),("partner's mask",'high','one-shot',-.001),('random mask','high','one-shot',-.004)]+[(a,'high','one-shot',-.02) for a in ('iterative','snip','grasp','synflow')]:
    for metric,sc in (('auc difference',1),('auc difference, probit',3),('tpr at 1% fpr difference',2)):
        new.append(base.assign(arm=arm,level=level,against=ag,metric=metric,value=v*sc,error=.004*sc,freedom=7,clusters=8))
pd.concat([t,*new]).to_csv('/tmp/ch2p/fake.csv',index=False)
