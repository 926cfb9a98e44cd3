"""Models loaded, replaced and removed while the service runs."""

from __future__ import annotations

import asyncio
import json
import shutil
import threading
from contextlib import asynccontextmanager
from typing import Any

import pytest
from pydantic import SecretStr

from service.app import create_app
from service.models.model_file import ModelFile
from service.settings import ModelSettings, Settings
from tests.helpers import PATIENCE_SECONDS, eventually_async

pytestmark = pytest.mark.anyio

ROOT, USER = "root-0123456789abcdef", "user-0123456789abcdef"
KEYS = f"root:admin:{ROOT},user:{USER}"
AS_ROOT = {"authorization": f"Bearer {ROOT}"}
MODEL: dict[str, Any] = {"code": "bb72", "decoder": "bposd", "rounds": 1, "own_process": False}
URL = "/v1/models/m/decode"
B8 = {"content-type": "application/octet-stream"}


class Makers:
    """Makes one decoder a load, and keeps them in order."""

    def __init__(self, echo_type) -> None:
        self.decoders: list[Any] = []
        self.fail: Exception | None = None
        self.hold = threading.Event()
        self.hold.set()
        self._type = echo_type

    def __call__(self, model, experiment):
        assert self.hold.wait(PATIENCE_SECONDS)
        if self.fail is not None:
            raise self.fail
        self.decoders.append(self._type(num_detectors=experiment.num_detectors))
        return self.decoders[-1]


@pytest.fixture
def makers(echo) -> Makers:
    return Makers(type(echo))


@pytest.fixture
def admin(serve, makers):
    @asynccontextmanager
    async def admin(**settings):
        async with serve(makers, **{"api_keys": KEYS} | settings) as client:
            client.headers.update(AS_ROOT)
            yield client

    return admin


def kind(response) -> str:
    return response.json()["type"].rpartition(":")[2]


async def test_only_administrators_change_models(admin, serve, makers):
    async with admin() as client:
        for headers, status in (
            ({"authorization": f"Bearer {USER}"}, 403),
            ({"authorization": "Bearer nobody-0123456789"}, 401),
        ):
            assert (await client.put("/v1/models/n", json=MODEL, headers=headers)).status_code == status
            assert (await client.delete("/v1/models/m", headers=headers)).status_code == status
        assert len((await client.get("/v1/models")).json()["models"]) == 1
    async with serve(makers) as client:  # no keys at all
        assert (await client.put("/v1/models/n", json=MODEL)).status_code == 403


async def test_a_model_is_added_replaced_and_removed(admin, makers):
    async with admin() as client:
        assert (await client.delete("/v1/models/m")).status_code == 409  # the last one
        added = await client.put("/v1/models/n", json=MODEL | {"rounds": 2})
        assert added.status_code == 200
        assert added.json() == (await client.get("/v1/models/n")).json()
        assert (added.json()["ready"], added.json()["experiment"]["rounds"]) == (True, 2)
        assert (await client.post("/v1/models/n/decode", content=bytes(18), headers=B8)).status_code == 200
        replaced = await client.put("/v1/models/n", json=MODEL | {"id": "n", "rounds": 3})
        assert replaced.json()["experiment"]["rounds"] == 3
        assert (await client.post("/v1/models/n/decode", content=bytes(27), headers=B8)).status_code == 200
        assert 'tandem_queued_shots{model="n"} 0.0' in (await client.get("/metrics")).text
        assert (await client.delete("/v1/models/n")).status_code == 204
        assert (await client.get("/v1/models/n")).status_code == 404
        assert (await client.delete("/v1/models/n")).status_code == 404
        assert 'tandem_queued_shots{model="n"}' not in (await client.get("/metrics")).text


async def test_a_request_at_work_ends_on_the_model_it_began_with(admin, makers):
    async with admin() as client:
        old = makers.decoders[0]
        old.hold()
        waiting = [asyncio.create_task(client.post(URL, content=bytes(9), headers=B8)) for _ in range(3)]
        await eventually_async(lambda: old.batches)
        assert (await client.put("/v1/models/m", json=MODEL)).status_code == 200
        new = makers.decoders[1]
        new.batches.clear()
        assert (await client.post(URL, content=bytes(9), headers=B8)).status_code == 200
        assert new.batches == [1]
        old.gate.set()
        assert [(await task).status_code for task in waiting] == [200, 200, 200]
        assert sum(old.batches) == 3
        await eventually_async(lambda: sum(thread.name == "decode-m" for thread in threading.enumerate()) == 1)


async def test_no_request_fails_while_a_model_is_replaced_again_and_again(admin, makers):
    async with admin() as client:
        done = asyncio.Event()
        statuses: list[int] = []

        async def ask() -> None:
            while not done.is_set():
                shot = bytes([len(statuses) % 128]) + bytes(8)
                response = await client.post(URL, content=shot, headers=B8)
                statuses.append(response.status_code)
                assert response.content == shot[:1] + b"\x00", response.text

        clients = [asyncio.create_task(ask()) for _ in range(6)]
        for rounds in range(20):
            assert (await client.put("/v1/models/m", json=MODEL)).status_code == 200, rounds
            new = makers.decoders[-1]
            await eventually_async(lambda new=new: sum(new.batches) > 4)  # more than the warm-up: it has its turn
        done.set()
        await asyncio.gather(*clients)
        assert len(makers.decoders) == 21
        assert len(statuses) > 20
        assert set(statuses) == {200}


async def test_a_model_that_cannot_be_loaded_leaves_the_old_one(admin, makers):
    async with admin() as client:
        makers.fail = FileNotFoundError("no such weights")
        response = await client.put("/v1/models/m", json=MODEL)
        assert (response.status_code, kind(response)) == (422, "model-not-loaded")
        assert "no such weights" in response.json()["detail"]
        assert (await client.post(URL, content=bytes(9), headers=B8)).status_code == 200
        makers.fail = None
        assert (await client.put("/v1/models/m", json=MODEL)).status_code == 200


@pytest.mark.parametrize(
    ("body", "status", "says"),
    [
        (b"{", 422, "no JSON"),
        (b"[]", 422, "object"),
        (json.dumps(MODEL | {"id": "other"}).encode(), 422, "'n'"),
        (json.dumps(MODEL | {"round": 1}).encode(), 422, "round"),
        (json.dumps(MODEL | {"code": "bb73"}).encode(), 422, "bb73"),
        (json.dumps(MODEL | {"decoder": "magic"}).encode(), 422, "magic"),
        (json.dumps(MODEL | {"rounds": 41}).encode(), 422, "at most 40"),
        (json.dumps(MODEL | {"weights": "a\0b"}).encode(), 422, "NUL"),
        (json.dumps(MODEL).encode()[:-1] + b', "rounds": 2}', 422, "Detected duplicate key"),
        (json.dumps(MODEL | {"weights": "w.safetensors"}).encode(), 422, "model_dir"),
        (b" " * (2**16 + 1), 413, "65536"),
    ],
)
async def test_what_is_no_model(admin, body, status, says):
    async with admin() as client:
        response = await client.put("/v1/models/n", content=body, headers={"content-type": "application/json"})
        assert response.status_code == status
        assert says in response.json()["detail"]
        assert (await client.get("/v1/models/n")).status_code == 404


@pytest.mark.parametrize(
    "path", ["../m", "..%2f..%2fetc%2fpasswd", "%2e%2e/m", "m%00", "a%2Fb", "m/../../etc", "%252e%252e", "m;x", "..."]
)
async def test_tricks_with_paths_find_no_model(admin, path):
    async with admin() as client:
        for target in (f"/v1/models/{path}", f"/v1/models/{path}/circuit"):
            assert (await client.get(target)).status_code in {404, 405}
        assert (await client.put(f"/v1/models/{path}", json=MODEL)).status_code in {404, 405, 422}
        assert len((await client.get("/v1/models")).json()["models"]) == 1


async def test_weights_lie_in_the_directory_of_models(admin, tmp_path):
    (inside := tmp_path / "models").mkdir()
    (tmp_path / "secret").write_text("")
    (inside / "link").symlink_to(tmp_path / "secret")
    (inside / "good").write_text("")
    async with admin(model_dir=inside) as client:
        for weights in ("../secret", "/etc/passwd", str(tmp_path / "secret"), "link", "good/../../secret"):
            response = await client.put("/v1/models/n", json=MODEL | {"weights": weights})
            assert (response.status_code, response.json()["errors"][0]["pointer"]) == (422, "#/weights")
        (inside / "loop").symlink_to(inside / "loop")
        for weights in ("loop", "x" * 5000):
            response = await client.put("/v1/models/n", json=MODEL | {"weights": weights})
            assert response.status_code == 422
        for weights in ("good", str(inside / "good")):
            assert (await client.put("/v1/models/n", json=MODEL | {"weights": weights})).status_code == 200


async def test_a_file_of_models_is_written_and_followed(makers, client_of, tmp_path, caplog):
    """Two applications stand for two workers: what one is told, the other does as well."""
    file = tmp_path / "models.json"
    settings = Settings(models=(ModelSettings(id="m", **MODEL),), models_file=file, api_keys=SecretStr(KEYS))
    async with (
        client_of(create_app(settings, make_decoder=makers)) as one,
        client_of(create_app(settings, make_decoder=makers)) as other,
    ):
        for client in (one, other):
            client.headers.update(AS_ROOT)

        async def both_have(ids: set[str], rounds: int) -> None:
            async def have() -> bool:
                answers = [await client.get("/v1/models") for client in (one, other)]
                found = [
                    {model["id"]: model["experiment"]["rounds"] for model in answer.json()["models"]}
                    for answer in answers
                ]
                return found == [dict.fromkeys(ids, rounds)] * 2

            await eventually_async(have)

        assert (await one.put("/v1/models/m", json=MODEL | {"rounds": 2})).status_code == 200
        await both_have({"m"}, 2)
        assert (await other.put("/v1/models/n", json=MODEL | {"rounds": 2})).status_code == 200
        await both_have({"m", "n"}, 2)
        assert (await one.delete("/v1/models/m")).status_code == 204
        await both_have({"n"}, 2)
        ModelFile(file).update(lambda models: models.update(n=ModelSettings(id="n", **MODEL)))
        await both_have({"n"}, 1)
        loads = len(makers.decoders)
        file.write_text("[")
        await eventually_async(lambda: caplog.text.count("the models stay as they are") == 2)
        await both_have({"n"}, 1)
        assert len(makers.decoders) == loads  # nor was anything loaded twice
    async with client_of(create_app(Settings(models_file=tmp_path / "new", models=settings.models))):
        assert [model.id for model in ModelFile(tmp_path / "new").read()] == ["m"]


@pytest.mark.parametrize(
    "content", ["", "[]", "{}", '[{"id": "a"}]', '[{"id":"a","code":"bb72"},{"id":"a","code":"bb72"}]']
)
def test_a_file_without_models(tmp_path, content):
    (file := tmp_path / "models.json").write_text(content)
    with pytest.raises(ValueError, match=r"models\.json"):
        create_app(Settings(models_file=file))


async def test_models_that_two_workers_remove_at_once_leave_one(makers, client_of, tmp_path):
    """Once the file was empty then, and what a worker went by and what its replacement found were two things."""
    file = tmp_path / "models.json"
    models = tuple(ModelSettings(id=name, **MODEL) for name in ("m", "n"))
    settings = Settings(models=models, models_file=file, api_keys=SecretStr(KEYS))
    async with (
        client_of(create_app(settings, make_decoder=makers)) as one,
        client_of(create_app(settings, make_decoder=makers)) as other,
    ):
        answers = await asyncio.gather(
            one.delete("/v1/models/m", headers=AS_ROOT), other.delete("/v1/models/n", headers=AS_ROOT)
        )
        assert sorted(answer.status_code for answer in answers) == [204, 409]
        (left,) = [model.id for model in ModelFile(file).read()]

        async def agree() -> bool:
            lists = [(await client.get("/v1/models", headers=AS_ROOT)).json()["models"] for client in (one, other)]
            return all([model["id"] for model in models] == [left] for models in lists)

        await eventually_async(agree)


async def test_a_change_that_cannot_be_stored_is_not_made(makers, client_of, tmp_path):
    (folder := tmp_path / "folder").mkdir()
    models = tuple(ModelSettings(id=name, **MODEL) for name in ("m", "n"))
    settings = Settings(models=models, models_file=folder / "models.json", api_keys=SecretStr(KEYS))
    async with client_of(create_app(settings, make_decoder=makers)) as client:
        client.headers.update(AS_ROOT)
        shutil.rmtree(folder)
        folder.write_text("in the place of the folder")
        for answer in (
            await client.put("/v1/models/m", json=MODEL | {"rounds": 2}),
            await client.put("/v1/models/new", json=MODEL),
            await client.delete("/v1/models/n"),
        ):
            assert (answer.status_code, kind(answer)) == (507, "not-stored")
            assert "stay as they are" in answer.json()["detail"]
        found = (await client.get("/v1/models")).json()["models"]
        assert {model["id"]: model["experiment"]["rounds"] for model in found} == {"m": 1, "n": 1}
        assert (await client.post(URL, content=bytes(9), headers=B8)).status_code == 200


async def test_a_model_is_replaced_when_it_is_ready_for_the_experiments_in_use(admin, makers):
    """An empty cache under load was a stampede, and 503 for those who came late."""
    async with admin() as client:
        for p in (1e-7, 2e-7):
            assert (await client.post(URL, params={"p": p}, content=bytes(9), headers=B8)).status_code == 200
        assert (await client.put("/v1/models/m", json=MODEL)).status_code == 200
        made = len(makers.decoders)
        makers.hold.clear()  # no further one can be made
        for p in (1e-7, 2e-7):
            assert (await client.post(URL, params={"p": p}, content=bytes(9), headers=B8)).status_code == 200
        assert len(makers.decoders) == made == 6
        makers.hold.set()
