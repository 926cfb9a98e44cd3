"""Serial belief propagation on the exact graph of both check types, with an ensemble of row orders and a quorum.

Normalised min-sum, one row (check) after the other in random order, each row with what the rows before it have just
said: layered decoding (Hocevar, SiPS 2004; Chen and Fossorier, IEEE Trans. Commun. 50, 406, 2002). Each check type has
a graph of its own, free of the short cycles that Pauli Y makes in the joint one. A mechanism that both types see links
a fault of one graph with a fault of the other. Messages along a link leave out what was heard along it, so that the
pair of graphs stands for the joint distribution exactly: GARI (arXiv 2510.14060).

A leg is a run of passes in one row order; it ends with a solution (faults that explain the events of the memory basis)
or after a number of passes. Later legs have other orders and memories, as in Relay-BP (arXiv 2506.01779). A shot stops
when its first few solutions agree on the coset, or else after more of them.

`graph` is a fault model as the two linked graphs; `rows`, rows in groups that share no fault, in random orders; `rules`
says when legs and shots end, and what comes out; `vectors` is a group of rows in vector instructions; `links` is what
the sides tell each other; `kernels` is the propagation. What becomes of the solutions is in `solutions`.
"""
