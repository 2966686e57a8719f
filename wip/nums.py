import sys; sys.path.insert(0,'/work/wt/ch2-page')
import pandas as pd, numpy as np
from lottolab.truth import stats, results
from lottolab.truth.intervals import measured
from pathlib import Path
T=None
def load(path):
    global T
    T=results.load(Path(path)).assign(stale=False)
def rows(metric,**sel):
    r=T[T.metric==metric]
    for k,v in sel.items():
        if v is None: r=r[r[k].isna()]
        else: r=r[r[k]==v]
    return r
def m(metric,d=1,**sel):
    r=rows(metric,**sel)
    return f"{100*r.value.mean():.{d}f}" if len(r) else "??"
def auc(metric='auc',d=3,**sel):
    r=rows(metric,**sel)
    return f"{r.value.mean():.{d}f}" if len(r) else "??"
def s(x,d=1):
    v=f"{x:.{d}f}"
    if float(v)==0: v=f"{0:.{d}f}"
    return v.replace('-','−')
def iv(lo,hi,d=1): return f"({s(lo,d)} to {s(hi,d)})"
def diff(metric,a,b,flip=False,d=1):
    """a minus b in points, with interval"""
    A=rows(metric,**a).set_index('seed').value.to_dict(); B=rows(metric,**b).set_index('seed').value.to_dict()
    if not A or not B: return "?? points (?? to ??)",None
    i=stats.mean_interval(100*stats.paired_by(A,B)); e,l,h=i.estimate,i.low,i.high
    if flip: e,l,h=-e,-h,-l
    return f"{s(e,d)} points {iv(l,h,d)}",(e,l,h)
def comp(arm,level,against,metric='auc difference',flip=False,scale=100,d=1,unit=' points'):
    r=T[(T.point=='compared')&(T.arm==arm)&(T.level==level)&(T.against==against)&(T.metric==metric)] if 'against' in T else T[:0]
    if not len(r): return f"??{unit} (?? to ??)",None
    f=measured.pooled(r).interval(); e,l,h=[scale*x for x in (f.estimate,f.low,f.high)]
    if flip: e,l,h=-e,-h,-l
    return f"{s(e,d)}{unit} {iv(l,h,d)}",(e,l,h)
