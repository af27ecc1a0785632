"""What an embedder is made of, as a value: known without loading torch."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field, model_validator

from resight.data.transforms import Preprocess


class EmbedderConfig(BaseModel):
    """What an embedder is made of. `pooling` "model" is the backbone's own (transformers).

    `depths`: the maps that are pooled, brought to unit length and joined (see `models.depths`);
    none stands for the last map alone, as it is. `grids`: for each of them the cells a side that
    it is averaged in, none for 1 in all; a depth may come several times, with several grids.
    `whiten`: the dimensions of a projection at the very end, after the neck; None for none.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    backbone: str = "resnet50"
    last_stride: Literal[1, 2] = 1
    depths: tuple[Annotated[int, Field(ge=0, le=255)], ...] = ()
    grids: tuple[Annotated[int, Field(ge=1, le=7)], ...] = ()
    pooling: Literal["auto", "average", "gem", "model"] = "auto"
    gem_p: Annotated[float, Field(gt=0, le=100)] = 3.0
    projection: Annotated[int, Field(ge=1, le=65536)] | None = None
    bn_neck: bool = True
    preprocess: Preprocess = Preprocess()
    whiten: Annotated[int, Field(ge=1, le=65536)] | None = None

    @model_validator(mode="after")
    def _grids_fit(self) -> EmbedderConfig:
        if self.grids and len(self.grids) != len(self.depths):
            raise ValueError("grids: as many as depths, or none")
        pairs = set(zip(self.depths, self.grids or (1,) * len(self.depths), strict=True))
        if len(pairs) < len(self.depths):
            raise ValueError("depths: the same depth and grid twice")
        return self

    def written(self) -> str:
        """JSON, as it is stored and hashed; what is not in use is not spoken of.

        So files and fingerprints are those of the time before there was any of it.
        """
        unused = {"depths": (), "grids": (), "whiten": None}
        return self.model_dump_json(exclude={k for k, v in unused.items() if getattr(self, k) == v})
