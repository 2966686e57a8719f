"""claims of `together` as in main, all else as in the given file: prints a new claims.yaml"""
import re,subprocess,sys
def blocks(text):
    # split on top-level comment groups + "- id:"
    lines=text.splitlines(keepends=True); out=[];cur=[]
    for l in lines:
        if l.startswith('- id:') and any(x.startswith('- id:') for x in cur):
            # move trailing comments/blank of cur to new
            k=len(cur)
            while k and (cur[k-1].startswith('#')): k-=1
            out.append(cur[:k]); cur=cur[k:]
        cur.append(l)
    out.append(cur); return out
def ident(b):
    for l in b:
        if l.startswith('- id:'): return l.split()[2]
main=subprocess.check_output(['git','show','main:data/claims.yaml']).decode(); mine=open('data/claims.yaml').read()
A,B=blocks(main),blocks(mine)
assert ''.join(map(''.join,A))==main and ''.join(map(''.join,B))==mine
tog={ident(b):b for b in A if (ident(b) or '').startswith('together-')}
res=[];done=False
for b in B:
    if (ident(b) or '').startswith('together-'):
        if ident(b) in tog: res.append(tog[ident(b)])
        else: print('drop',ident(b),file=sys.stderr)
    else: res.append(b)
have={ident(b) for b in res}
print('missing',[t for t in tog if t not in have],file=sys.stderr)
open('data/claims.yaml','w').write(''.join(map(''.join,res)))
