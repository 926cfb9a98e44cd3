"""What is made of solutions: lighter ones of each coset, how likely each coset is, the answer and its confidence."""
