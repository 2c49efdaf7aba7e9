"""An action that posts the episode to an address, signed."""

from typing import Final, Self

from gateway.errors import ConfigError
from gateway.monitor.body_template import DEFAULT, BodyTemplate
from gateway.monitor.episode import Episode
from gateway.monitor.outcome import Outcome
from gateway.monitor.post import Post, post_fields, read_post
from gateway.monitoring_file import Part
from gateway.tables import Check, text

#: Characters of an answer that are kept.
MAX_KEPT: Final = 1000


class WebhookRun:
    """Posts; a status of 2xx is success."""

    def __init__(self, *, action: str, template: BodyTemplate, post: Post) -> None:
        """Post what ``template`` makes of an episode; ``action`` is the name, for the body."""
        self._action: Final = action
        self._template: Final = template
        self._post: Final = post

    @classmethod
    def read(cls, part: Part, common: dict[str, Check]) -> tuple[Self, dict[str, object]]:
        """What the table asks for, and the values of the keys that are ``common`` to all actions.

        Raises:
            ConfigError: a key or value is wrong.
        """
        fields = {**common, **post_fields(part), "body": text, "body_file": part.path}
        values = part.read(fields, ("url",))
        if "body" in values and "body_file" in values:
            raise ConfigError(f"{part.where}body and body_file are both set: remove one of them")
        template, key = values.get("body", DEFAULT), "body"
        if "body_file" in values:
            key, path = "body_file", values["body_file"]
            try:
                template = path.read_text("utf-8")
            except (OSError, UnicodeDecodeError) as error:
                raise ConfigError(f"{part.where}body_file: cannot read {path}: {error}") from None
        made = cls(
            action=part.name,
            template=BodyTemplate(template, f"{part.where}{key}"),
            post=read_post(part, values),
        )
        return made, {name: values[name] for name in common if name in values}

    async def attempt(self, episode: Episode, attempt: int) -> Outcome:
        """See ``Run.attempt``."""
        body = self._template.body(episode, self._action, attempt)
        answer = await self._post.send(body, episode.id)
        return Outcome(
            ok=answer.ok,
            again=answer.may_succeed_later,
            text=str(answer)[:MAX_KEPT],
            details={"status": answer.status, "answer": answer.text[:MAX_KEPT]},
            wait_s=answer.retry_after_s,
        )

    async def close(self) -> None:
        """See ``Run.close``."""
        self._post.close()
