"""Eight CPU devices for every test, set before JAX starts, so that those on distribution run anywhere."""

import jax

jax.config.update("jax_num_cpu_devices", 8)
