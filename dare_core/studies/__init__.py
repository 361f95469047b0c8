"""One module a finding, named as its notebook: `Config` is what can be set, `run` gives the result."""

from dare_core.studies import convergence, data, gradients, landing, overall, reproducibility, your_own_log

STUDIES = {
    module.__name__.rpartition(".")[2]: module
    for module in (landing, data, gradients, overall, convergence, your_own_log, reproducibility)
}
"""Every study by name; a new one is a module, a notebook and a line here."""
