"""Many runs: grids of them, the λ sweep, Table 1, the study."""
