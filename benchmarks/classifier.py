"""Images per second: the papers' stages image by image, and the cascade with rows of many images in a batch.

    python -m benchmarks.classifier

Both get the same images under the same noise in turn, chunk by chunk, so that what disturbs the machine falls on both
alike; the plain loop gets one chunk in ten. A quarter of an hour for the embedded test split on 2 CPU cores.
"""

from __future__ import annotations

import argparse
import time

from bigain.classify import Racing, Stages
from bigain.progress import progress_bar
from bigain.run.settings import DataSettings, ModelSettings
from experiments.classifier import MANY, made

_CHUNK = 50
_ONE_IN = 10


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", choices=MANY, default="glyphs-dit")
    parser.add_argument("--images", type=int, help="of the test split; all if left out")
    parser.add_argument("--dtype", default="bfloat16")
    given = parser.parse_args()
    model = ModelSettings(model=given.model, dtype=given.dtype)
    denoiser = model.open(quiet=True)
    source = DataSettings().load(denoiser)
    count = min(given.images or len(source.entries), len(source.entries))
    cascade = Racing(20, methods=(MANY[given.model][0], "none"))
    how = {"loop": (Stages((5, 1), (5, 20)), False), "cascade": (cascade, True)}
    loop, packed = made(how, given.model, denoiser, source, model.batch_size).values()
    seconds, right, done = [0.0, 0.0], [0, 0], [0, 0]
    with progress_bar(count, True, unit="image") as bar:
        for number, start in enumerate(range(0, count, _CHUNK)):
            items = list(source.items(range(start, min(start + _CHUNK, count))))
            for which in (0, 1) if number % _ONE_IN == 0 else (1,):
                started = time.perf_counter()
                if which == 0:
                    predictions = [one for item in items for one in loop.predict([item.image], [item.id])]
                else:
                    predictions = packed.predict([item.image for item in items], [item.id for item in items])
                seconds[which] += time.perf_counter() - started
                right[which] += sum(one.prediction in item.labels for one, item in zip(predictions, items, strict=True))
                done[which] += len(items)
            bar.update(len(items))
    for which, name in enumerate(["plain loop", "cascade"]):
        rate = done[which] / seconds[which]
        print(f"{name:10} {done[which]:5} images, {rate:6.2f} a second, {100 * right[which] / done[which]:.1f}% right")


if __name__ == "__main__":
    main()
