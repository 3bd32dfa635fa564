"""What holds for every test: eight CPU devices, set before JAX starts, and the same examples of Hypothesis in each run.

So a test that turns red tells of the change at hand. The tests marked slow draw new examples every time.
"""

import jax
from hypothesis import HealthCheck, settings

jax.config.update("jax_num_cpu_devices", 8)
settings.register_profile("same", derandomize=True, deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("same")
