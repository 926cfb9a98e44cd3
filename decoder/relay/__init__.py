"""Relay belief propagation on both check types at once.

Min-sum (Chen and Fossorier 2002) on the factor graph of each check type. After every few iterations each check type
tells the other how likely its faults make the other's, since a Pauli Y is a fault of both. Faults remember their last
log-odds with a strength of their own, as in Relay-BP (Mueller et al., arXiv 2506.01779): all with the same small one in
the first leg; in later legs with random ones, negative for some, which breaks the symmetry that keeps plain iterations
going in circles. A leg ends after a number of iterations, or with a solution: faults that explain the memory basis's
events. After a solution the next leg starts from the priors, with small random strengths, and may find
another one.

`graph` splits a fault model into the two graphs; `rules` says when legs start and shots stop, and what comes out;
`cpu` and `gpu` do it. The classical decoder `relay-split` and the network's beliefs are made of this.
"""
