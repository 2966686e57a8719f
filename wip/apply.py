"""usage: apply.py EXECUTED.ipynb TABLE.csv"""
import sys; sys.path.insert(0,'/tmp/ch2p')
import nbformat, re
from final import build,R,F_,I_
import final as G, nums as N
from nums import m,auc,diff,comp
run,table=sys.argv[1:3]
X,W=build(table)
import os; P=os.environ.get('CH2ROOT','/work/wt/ch2-page')+'/book/membership.ipynb'
nb=nbformat.read(P,4); ran=nbformat.read(run,4)
src={c.id:c for c in ran.cells}
for c in nb.cells:
    if c.cell_type!='code': continue
    assert c.id in src,c.id
    if src[c.id].source!=c.source: print('SOURCE DIFFERS',c.id)
    c.outputs=src[c.id].outputs; c.execution_count=src[c.id].execution_count
by={c.id:c for c in nb.cells}
X={k:re.sub(r'(?<=\d)\.0 %(?= of its members)','.0 %',v) for k,v in X.items()}
s=by['mem-01'].source
a=s.index('- **In short:**'); b=s.index('- **Threat model:**')
s=s[:a]+X['mem-01']+"- **On CIFAR-10**, the paper's images, what this edition corrects has *not been run*; 17 of the 32 claims still stand there.\n"+s[b:]
by['mem-01'].source=s
for k in ('mem-44','mem-47','mem-50','mem-52','mem-55','mem-57','mem-62','mem-65','mem-75','mem-77','mem-72'):
    by[k].source=X[k] + ("\n\n### Details: classes in numbers" if k=='mem-65' else "\n\n### Details: shadows in numbers" if k=='mem-75' else "")
arch="Across architectures:"
old=by['mem-70'].source; i=old.index('The two architectures leak alike')
by['mem-70'].source=X['mem-70']+"\n\n"+old[i:]
old=by['mem-95'].source; i=old.index('### Details: what this page does not say')
by['mem-95'].source=X['mem-95']+old[i:]
by['membership-cifar-a'].source=open('/tmp/ch2p/cifar.txt').read().strip()
exec(open('/tmp/ch2p/more.py').read())
nbformat.write(nb,P)
