"""Every grant against the real authorization server, from the command to the mailbox, and again when its token has ended."""

import re

from life import expect, login
from person import Person


def lives_on(world, account, grant):
    """Logs in, and once more after every token has ended, which costs one request by `grant`."""
    login(world, account).logout()
    before = world.server.counts().get(grant, 0)
    world.server.revoke_access_tokens()
    login(world, account).logout()
    expect(world.server.counts().get(grant, 0) == before + 1, f"one more request by {grant}")


def a_code_is_typed_in_elsewhere(world):
    address = "device@example.test"

    def act(printed, child):
        page = re.fullmatch(r"\s+(https://\S+/device)\n", printed)
        if page:
            Person(address, world.run.ca).type_in(page[1], child.stdout.readline().strip())
        return bool(page)

    account = world.postkey.authorize_alone(address, act=act)
    lives_on(world, account, "refresh_token")


def a_client_with_a_secret_was_let_in(world):
    lives_on(world, world.postkey.authorize_alone("secret@example.test"), "client_credentials")


def a_client_with_a_key_was_let_in(world):
    lives_on(world, world.postkey.authorize_alone("key@example.test"), "client_credentials")


def a_key_speaks_for_the_mailbox(world):
    lives_on(world, world.postkey.authorize_alone("assertion@example.test"), "urn:ietf:params:oauth:grant-type:jwt-bearer")


def the_mailboxs_own_password_is_used(world):
    address = "password@example.test"
    world.postkey.command("authorize", address, line="not the password", fails=True)
    lives_on(world, world.postkey.authorize_alone(address, line=world.server.password), "password")


def a_refresh_token_is_taken_over(world):
    address = "token@example.test"
    token = world.tokens.authorize(address)["refresh_token"]
    lives_on(world, world.postkey.authorize_alone(address, "--refresh-token-stdin", line=token), "refresh_token")


TESTS = [
    a_code_is_typed_in_elsewhere, a_client_with_a_secret_was_let_in, a_client_with_a_key_was_let_in,
    a_key_speaks_for_the_mailbox, the_mailboxs_own_password_is_used, a_refresh_token_is_taken_over,
]
