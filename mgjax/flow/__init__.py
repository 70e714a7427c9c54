"""Flow matching on plain arrays (Movie Gen §3.1.2, §3.4.2): no Flax, no model.

Read in this order: `path`, `times`, `objective` to train (`diffusion`, `prediction` are the arm to
compare with); `schedules`, `solvers`, `guidance`, `sample` to generate.
"""
