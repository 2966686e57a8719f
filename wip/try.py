import sys; sys.path.insert(0,'/tmp/ch2p')
import nums as N
N.load(sys.argv[1])
F=dict(point='family',arm='dense')
print(N.m('accuracy',attack='mlp',**F), N.diff('accuracy',dict(attack='mlp',point='family',arm='one-shot',level='ticket'),dict(attack='mlp',**F),flip=True))
