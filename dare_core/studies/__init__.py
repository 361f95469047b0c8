"""One module a finding, named as its notebook: `Config` is what can be set, `run` gives the result."""

from dare_core.studies import (
    attention,
    convergence,
    data,
    discriminability,
    gradients,
    landing,
    language,
    method,
    model,
    overall,
    projections,
    reproducibility,
    retrieval_number,
    search_efficiency,
    your_own_log,
)

STUDIES = {
    module.__name__.rpartition(".")[2]: module
    for module in (
        landing,
        model,
        method,
        data,
        gradients,
        projections,
        language,
        overall,
        attention,
        discriminability,
        convergence,
        search_efficiency,
        retrieval_number,
        your_own_log,
        reproducibility,
    )
}
"""Every study by name; a new one is a module, a notebook and a line here."""
