"""What a study is told that judges retrieval by what behaviours are worth."""

from pydantic import Field

from dare_core.evaluation.gains import GainRule
from dare_core.studies.common import StudyConfig


class GainSettings(StudyConfig):
    """Settings of the scores that retrieve, and of the mutual information that judges them."""

    with_items: bool = Field(False, description="keep the item embeddings in the scores, which the paper leaves out")
    least_samples: int = Field(200, ge=1, description="training samples of a judged target category (published: 700)")
    least_cell: int = Field(10, ge=0, description="training samples of a cell that is not thin (published: 50)")
    most_thin: int = Field(100_000, ge=0, description="thin behaviours of a judged history (published: 20)")
    published_ndcg: bool = Field(False, description="ideal at top_k for every k; thin cells as the published code has")

    @property
    def rule(self) -> GainRule:
        """Which cells are trusted."""
        return GainRule(self.least_samples, self.least_cell, self.most_thin, self.published_ndcg)
