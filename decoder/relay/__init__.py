"""Relay belief propagation on both check types at once.

Normalised min-sum (Chen and Fossorier 2002) on the factor graph of each check type. Iterations come in blocks; after
each block the check types exchange beliefs: how likely the faults of one make the faults of the other, since a Pauli Y
is a fault of both.

Faults remember their last log-odds with strengths of their own, as in Relay-BP (Mueller et al., arXiv 2506.01779): all
with the same small one in the first leg; in later legs with random ones, negative for some, which breaks the symmetry
that keeps plain iterations going in circles. A leg ends after a number of blocks, or with a solution: faults that
explain the memory basis's events. After a solution the next leg starts from the priors, with small random strengths,
and may find another one.

`graph` splits a fault model into the two graphs; `rules` says when legs begin and shots stop, and what comes out;
`kernels` computes it on CPUs. The classical decoder `relay-split` and the network's beliefs are made of this.
"""
