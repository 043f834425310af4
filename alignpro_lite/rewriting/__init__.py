"""One prompt's way: request, candidates, refusals, trial answers, the draw from ρ*, result."""
