"""A transformer under a linear head, and what it gives for many prompts."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence

import numpy as np
import torch
from torch import nn
from tqdm import tqdm

from routing.embeddings import batches_to_read
from routing.routers.prompt_batches import pad_rows
from routing.routers.transformer import has_bfloat16, states_below_last

INFERENCE_BATCH = 64


class RatingModel(nn.Module):
    """A transformer whose vector of a prompt goes through a linear head: one output a tier.

    Parameters
    ----------
    backbone : PreTrainedModel
    pool : function (states, mask) -> vectors
        From the last layer's states, (B, T, width) float32, to the prompt's vector, (B, width).
    head : Linear
    log_nu : float
        Of the tie parameter, where training starts; minus infinity, where there are no ties, is not trained.
    """

    def __init__(
        self,
        backbone: nn.Module,
        pool: Callable[[torch.Tensor, torch.Tensor], torch.Tensor],
        head: nn.Linear,
        log_nu: float,
    ) -> None:
        super().__init__()
        self.backbone, self.pool, self.head = backbone, pool, head
        self.log_nu = nn.Parameter(torch.tensor(log_nu, dtype=torch.float32), requires_grad=math.isfinite(log_nu))
        self._no_split_modules = getattr(backbone, "_no_split_modules", None)  # how FSDP wraps it

    def vectors(
        self,
        attention_mask: torch.Tensor,
        input_ids: torch.Tensor | None = None,
        inputs_embeds: torch.Tensor | None = None,
        position_ids: torch.Tensor | None = None,
    ) -> torch.Tensor:
        """The prompts' vectors, (B, width) float32."""
        given = {"input_ids": input_ids, "inputs_embeds": inputs_embeds, "position_ids": position_ids}
        given = {name: value for name, value in given.items() if value is not None}
        states = self.backbone(attention_mask=attention_mask, **given).last_hidden_state  # (B, T, width)
        return self.pool(states.float(), attention_mask)

    def forward(
        self,
        attention_mask: torch.Tensor,
        input_ids: torch.Tensor | None = None,
        inputs_embeds: torch.Tensor | None = None,
        position_ids: torch.Tensor | None = None,
    ) -> torch.Tensor:
        """What each prompt adds to the leaderboard: (B, n_outputs) float32."""
        vectors = self.vectors(attention_mask, input_ids, inputs_embeds, position_ids)
        with torch.autocast(vectors.device.type, enabled=False):  # ratings are small differences of the outputs
            return self.head(vectors)

    def run(
        self, rows: Sequence[torch.Tensor], function: Callable[..., torch.Tensor], device: str, left: bool
    ) -> torch.Tensor:
        """What `forward` or `vectors` gives for each prompt: (n_prompts, n).

        Prompts are read in batches of like length, in bfloat16 on a device that has it.

        Parameters
        ----------
        rows : sequence of int64 tensor, shape (T,)
            Tokens of each prompt.
        left : bool
            As `pad_rows`.
        """
        parts: list[torch.Tensor] = [torch.empty(0)] * len(rows)
        for batch, inputs in self._batches(rows, device, left):
            for number, row in zip(batch, function(**inputs).float().cpu(), strict=True):
                parts[number] = row
        return torch.stack(parts)

    def states_below_last(self, rows: Sequence[torch.Tensor], device: str, left: bool) -> list[torch.Tensor]:
        """What the last layer is given for each prompt: (T, width), in half precision; arguments as `run`."""
        states: list[torch.Tensor] = [torch.empty(0)] * len(rows)
        with states_below_last(self.backbone) as caught:
            for batch, inputs in self._batches(rows, device, left):
                self.vectors(**inputs)
                real = inputs["attention_mask"].bool()
                for number, row, kept in zip(batch, caught.pop(), real, strict=True):
                    states[number] = row[kept].to("cpu", torch.float16)
        return states

    def _batches(
        self, rows: Sequence[torch.Tensor], device: str, left: bool
    ) -> Iterator[tuple[np.ndarray, dict[str, torch.Tensor]]]:
        self.to(device).eval()
        precision = torch.autocast(torch.device(device).type, torch.bfloat16, enabled=has_bfloat16(device))
        lengths = np.array([len(row) for row in rows])
        with torch.no_grad(), precision, tqdm(total=len(rows), desc="read prompts", unit="prompt", disable=None) as bar:
            for batch in batches_to_read(lengths, INFERENCE_BATCH, torch.device(device).type == "cpu"):
                inputs = pad_rows([rows[number] for number in batch], left)
                yield batch, {name: value.to(device) for name, value in inputs.items()}
                bar.update(len(batch))
