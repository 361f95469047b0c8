"""The log of a name that a study is given."""

from dare_core.data.generated import WorldConfig, generate
from dare_core.data.logs import Log
from dare_core.studies.settings import WORLDS, StudyConfig
from dare_core.training.runs import RunStore


def resolve_log(config: StudyConfig, name: str, store: RunStore, seed: int = 1) -> Log:
    """The log of a name for a training seed: each has its own world, which is generated where it is missing."""
    if name not in WORLDS:
        return store.log(name)
    world = WorldConfig(
        kind=WORLDS[name],
        users=config.world_users,
        items=max(config.world_items, config.world_categories),
        categories=config.world_categories,
        world_seed=config.world_seed + seed - 1,
    )
    return store.log(generate(world).card.name)
