"""A TCP proxy that can cut, stall and refuse its connections. It simulates the network between a coordinator and its pool."""

import socket
import threading


class Proxy:
    """Listens on a free port and passes bytes to and from 127.0.0.1:target."""

    def __init__(self, target):
        self.target = target
        self.open = threading.Event()  # while it is clear, no byte passes
        self.open.set()
        self.lock = threading.Lock()
        self.sockets = set()
        self.server = socket.create_server(("127.0.0.1", 0))
        self.port = self.server.getsockname()[1]
        threading.Thread(target=self._accept, daemon=True).start()

    def _accept(self):
        while True:
            try:
                near, _ = self.server.accept()
            except OSError:
                return
            try:
                far = socket.create_connection(("127.0.0.1", self.target), timeout=5)
            except OSError:
                near.close()
                continue
            with self.lock:
                self.sockets |= {near, far}
            for a, b in ((near, far), (far, near)):
                threading.Thread(target=self._pass, args=(a, b), daemon=True).start()

    def _pass(self, a, b):
        try:
            a.settimeout(None)
            while data := a.recv(1 << 16):
                self.open.wait()
                b.sendall(data)
        except OSError:
            pass
        self._end(a, b)

    def _end(self, *sockets):
        with self.lock:
            self.sockets -= set(sockets)
        for s in sockets:
            try:
                s.shutdown(socket.SHUT_RDWR)
            except OSError:
                pass
            s.close()

    def cut(self):
        """Ends all connections at once, most of them in the middle of a message. New ones are accepted."""
        with self.lock:
            sockets = list(self.sockets)
        self._end(*sockets)
        return len(sockets) // 2

    def stall(self):
        """Makes a partition: connections stay, but no byte passes until `heal`."""
        self.open.clear()

    def heal(self):
        self.open.set()

    def close(self):
        self.server.close()
        self.heal()
        self.cut()
