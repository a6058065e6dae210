"""Many annotators in one asyncio program: one model, a session each, few threads, and a drag that keeps up.

    pip install ".[cpu]"  # in the clone; with a wheel, its file in place of the dot
    python examples/async_many.py

It takes the photograph of a cat from the demo's bundle. Eight annotators click on it at the same time.
"""

import asyncio

from mmms_deploy import AsyncSession, Features, Model
from mmms_deploy.errors import SupersededError
from mmms_deploy.replay import load_golden

ANNOTATORS = 8
CLICKS = [(180, 105, True), (322, 137, True), (260, 200, False), (260, 255, True)]


async def annotate(model: Model, features: Features, thinking: float) -> int:
    """Click as one annotator does, and return how many pixels the mask has."""
    async with AsyncSession(model) as session:
        await session.use(features)  # the image was encoded once, for all of them
        for x, y, positive in CLICKS:
            await asyncio.sleep(thinking)  # the event loop is free all the time
            await session.click(x, y, positive)
        await session.undo()
        return session.result.area  # what was answered last; no waiting


async def drag(model: Model, features: Features) -> None:
    """Move one click faster than the network answers: the newest place counts, and those it overtook never run."""
    async with AsyncSession(model) as session:
        await session.use(features)
        moves = []
        for x in range(180, 200):
            moves.append(asyncio.create_task(session.set_clicks([[x, 105, 1]], latest=True)))
            await asyncio.sleep(0.001)
        answers = await asyncio.gather(*moves, return_exceptions=True)
        overtaken = sum(isinstance(answer, SupersededError) for answer in answers)
        print(f"{len(moves)} moves, {overtaken} overtaken, the click is at x = {session.clicks[0].x:g}")


async def main() -> None:
    """Run all annotators, and the drag."""
    with Model("demo") as model:  # opens the engine once
        cat = load_golden(model.bundle.file("golden.npz"))[2].image
        features = await asyncio.to_thread(model.encode, cat)
        areas = await asyncio.gather(*(annotate(model, features, 0.01 * n) for n in range(ANNOTATORS)))
        print(f"{ANNOTATORS} annotators: {sorted(set(areas))} pixels")
        await drag(model, features)


asyncio.run(main())
