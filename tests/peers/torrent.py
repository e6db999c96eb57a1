"""One end of a BitTorrent v2 transfer by libtorrent 2, for the benchmarks.

    torrent.py make FILE TORRENT PIECE             writes TORRENT (v2 only) for FILE in pieces of PIECE bytes
    torrent.py seed PROFILE TORRENT FOLDER HOST PORT [super]
    torrent.py leech PROFILE TORRENT FOLDER HOST PORT PEER...    PEER is host:port

PROFILE is `fast` (libtorrent's own preset for fast machines) or `swarm` (what gave the shortest makespan of several
leechers behind slow uplinks, of all that was tried).

`seed` says `ready` once it serves. `leech` connects to its peers without wanting anything, says `ready`, waits for a line
on standard input, fetches, says `done` when every piece is here and verified, and then serves on. Both end when their
standard input does. Nothing is limited, nothing is looked up (no DHT, no tracker, no local discovery).
"""

import sys
import time

import libtorrent as lt

# A swarm on one switch is connected by then; a transfer that stands still for longer has failed.
CONNECT_SECONDS = 20
STALL_SECONDS = 120


def make(path, torrent, piece):
    storage = lt.file_storage()
    lt.add_files(storage, path)
    creator = lt.create_torrent(storage, int(piece), lt.create_torrent.v2_only)
    lt.set_piece_hashes(creator, path.rsplit("/", 1)[0])
    with open(torrent, "wb") as out:
        out.write(lt.bencode(creator.generate()))


# A private swarm whose peers are named, and no limits.
COMMON = {
    "enable_dht": False,
    "enable_lsd": False,
    "enable_upnp": False,
    "enable_natpmp": False,
    "enable_outgoing_utp": False,
    "enable_incoming_utp": False,
    "allow_multiple_connections_per_ip": True,
    "close_redundant_connections": False,
    "connection_speed": 500,
    "unchoke_slots_limit": -1,
    "alert_mask": lt.alert.category_t.status_notification | lt.alert.category_t.error_notification,
}
# Deep queues at the seed make it send a piece to several leechers before each piece was sent once: with the defaults a
# swarm of 1 + 3 took 1.58 times F/u, with these 1.15. Pieces of 64 KiB did better than larger ones.
SWARM = {
    "request_queue_time": 1,
    "max_allowed_in_request_queue": 16,
    "piece_extent_affinity": False,
    "strict_end_game_mode": False,
    "initial_picker_threshold": 0,
}


def session(profile, host, port):
    settings = {} if profile == "swarm" else lt.high_performance_seed()
    settings.update(COMMON)
    if profile == "swarm":
        settings.update(SWARM)
    settings["listen_interfaces"] = f"{host}:{port}"
    return lt.session(settings)


def parameters(torrent, folder):
    params = lt.add_torrent_params()
    params.ti = lt.torrent_info(torrent)
    params.save_path = folder
    params.flags &= ~lt.torrent_flags.paused
    params.flags &= ~lt.torrent_flags.auto_managed
    return params


def say(word):
    print(word, flush=True)


def seed(profile, torrent, folder, host, port, how=""):
    running = session(profile, host, port)
    params = parameters(torrent, folder)
    params.flags |= lt.torrent_flags.seed_mode
    if how == "super":
        params.flags |= lt.torrent_flags.super_seeding
    running.add_torrent(params)
    while running.listen_port() == 0:
        time.sleep(0.01)
    say("ready")
    sys.stdin.read()


def leech(profile, torrent, folder, host, port, *peers):
    running = session(profile, host, port)
    params = parameters(torrent, folder)
    files = params.ti.num_files()
    params.file_priorities = [0] * files
    handle = running.add_torrent(params)
    deadline = time.monotonic() + CONNECT_SECONDS
    while handle.status().state == lt.torrent_status.checking_files:
        time.sleep(0.01)
    for peer in peers:
        name, _, number = peer.rpartition(":")
        handle.connect_peer((name, int(number)))
    while handle.status().num_peers < len(peers):
        if time.monotonic() > deadline:
            sys.exit(f"only {handle.status().num_peers} of {len(peers)} peers are connected")
        time.sleep(0.02)
    say("ready")
    if not sys.stdin.readline():
        return
    handle.prioritize_files([4] * files)
    moved, last = time.monotonic(), -1
    while True:
        running.wait_for_alert(50)
        for alert in running.pop_alerts():
            if isinstance(alert, (lt.file_error_alert, lt.torrent_error_alert)):
                sys.exit(alert.message())
        status = handle.status()
        if status.is_seeding:
            break
        if status.total_wanted_done != last:
            moved, last = time.monotonic(), status.total_wanted_done
        elif time.monotonic() - moved > STALL_SECONDS:
            sys.exit(f"stalled at {last} of {status.total_wanted} bytes")
    say("done")
    sys.stdin.read()


if __name__ == "__main__":
    {"make": make, "seed": seed, "leech": leech}[sys.argv[1]](*sys.argv[2:])
