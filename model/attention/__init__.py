"""Who sees whom, and how it is computed: the interval, packed rows on a CPU and a GPU, the slot cache."""
