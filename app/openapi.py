"""The text at the top of /docs."""

from collections.abc import Mapping

from app.settings import Settings
from model.weights.sources import Source

DESCRIPTION = """
What a GPT attends to, in the model's own numbers: scores, scaled and masked scores and weights of every head,
the statistics of every norm, and next-token predictions.

Layers, heads and positions count from 0. Rows are queries (the token that attends), columns are keys (the token that
is attended to). An error is `application/problem+json` (RFC 9457), and its `detail` says what to do.

Every call takes a `text`, or the `ids` of its tokens: exactly one of them. For ids, the reply's `text` is what they
spell, and `start` and `end` of each token count its characters.

## Edits

`edits` says what is changed while the model reads; every number of the reply is then that of the changed model. Edits
are separated by commas. HEAD may be `*` for all heads, except of `cut`; LAYER of `nomask` and `temperature` may be `*`
for all layers.

- `scale:LAYER.HEAD:FACTOR` multiplies what a head passes on to the output projection; 0 switches it off.
- `cut:LAYER.HEAD:QUERY>KEY`: the token at position QUERY gets nothing from the one at KEY (a score of −∞).
- `steer:LAYER:NAME:STRENGTH` adds STRENGTH times a direction to every token after a layer. `directions` of the body
  names them, as in `{"golden": [0.1, …]}`, each with `d_model` numbers. The direction `token-ID`, such as `token-295`,
  is always there: the row of the unembedding of that token, divided by its length.
- `temperature:LAYER.HEAD:VALUE` divides the scaled scores of a head.
- `nomask:LAYER.HEAD`: a head attends to later tokens, too. The text is then read in one pass, and may not be longer.
- `drop:TARGET:RATE:SEED`: dropout of `embedding`, `weights`, `attention` or `mlp`, as in training; SEED chooses what.

For example, `"edits": "scale:3.5:0,cut:11.7:2>1"`. The reply's `edits` are the same in canonical order, without those
that change nothing. Edits that cannot be made are an error that repeats them as they are written.

## The live channel

`/api/v2/live` is a WebSocket for a client whose text changes while it is typed. Send a request, as JSON text, whenever
something changes:

    {"seq": 7, "text": "the fat cat", "layer": 11, "head": 7, "query": null, "stage": "weights", "window": null}

It has the fields of `POST /api/v2/view` except `overview`, and `seq`, a number that counts up. The newest request wins:
an older one that has not begun to run is dropped without a reply. Replies are binary frames as `POST /api/v2/view`
describes them. Each frame changes what the client has, and must be applied in order, even if its text is no longer
wanted:

- `edits` are those under which the text was read. Under other edits nothing is shared with what was sent before.
- `n_tokens` is the length of the text. Its first `n_shared` tokens are those that the client has; `tokens` are the
  others.
- `heatmap`: the chosen head in `heatmap.window`, with `heatmap.cell_size` tokens per side of a cell. Its first
  `heatmap.from` rows and columns are unchanged. `scores`, `scaled` and `weights` are the rows from there on,
  `scores_columns` and `scaled_columns` the new columns of the rows before (weights of those are 0). If
  `heatmap.cell_size` is more than 1 there is `masked` too: on the diagonal the largest masked score is not the largest
  scaled one. `masked` and `row_masked` also come if edits change the attention of the layer. `null`: the whole heatmap
  is unchanged.
- `norms.from`: `mean`, `variance` and `rms` are those of the tokens from there on. Absent: they are unchanged.
- `grid`: the array `grid` has rows of pixels from `grid.from` on, for the layers from `grid.layers[0]` up to, but not
  including, `grid.layers[1]`; `to_first_token` is for the tokens from `grid.n_sent` on. If `grid.n_sent` is not a
  multiple of `grid.pixel_size`, a pixel of the first row is the larger of the new one and the one that the client has.
  The rows of a long text come in several frames that have little else. If `grid.pixel_size` changes, discard all
  thumbnails. Until the new rows arrive, rows of pixels beyond `n_shared` belong to the previous text.
- `done` is true in the last frame of a reply.

Other frames have a header without arrays: `{"seq", "progress": {"n_read", "n_tokens"}}` (tokens of a long text that are
read), `{"seq", "problem", "retry_after_s"}`, and `{"pong": 1}` in reply to `{"ping": 1}`. The server closes a socket
with 4000 after 15 minutes without a request, with 4008 above 60 messages per second, with 1009 if a message is over
1 MiB, and with 1003 if a message is not text.
"""


def description(sources: Mapping[str, Source], settings: Settings) -> str:
    """The text at the top of /docs, with what each model is."""
    limit = f"A text may be as long as the model's context, but not over LOOKBACK_MAX_TOKENS ({settings.max_tokens:,})."
    models = (
        f"- `{name}`: {source.about(settings.dtype)}; context of {source.config().n_context:,} tokens"
        for name, source in sources.items()
    )
    return "\n".join((DESCRIPTION, "## The models", "", limit, "", *models, ""))
