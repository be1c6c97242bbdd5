"""Backends in Python that pay: each serves the contract's two calls in its framework's default or most lenient mode.

Prints {"control": port, "routers": {name: port}}; the control port answers {name: {"paid": [url], "seen": count}}.
Exits when its standard input closes.
"""

import asyncio
import json
import logging
import re
import socket
import sys
import threading
import unicodedata
import urllib.parse
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from wsgiref.simple_server import WSGIRequestHandler, WSGIServer, make_server

import bottle
import django
import flask
import starlette.applications
import starlette.responses
import starlette.routing
import tornado.httpserver
import tornado.netutil
import tornado.web
import uvicorn
import waitress
from django.conf import settings
from django.core.handlers.wsgi import WSGIHandler
from django.http import HttpResponse
from django.urls import path as django_path
from django.urls import re_path as django_re_path

CALLS = ["/pay/sendApiRedPack", "/pay/getApiRedPacketStatus"]
NAMES = [path.removeprefix("/pay/") for path in CALLS]
EITHER = "(sendApiRedPack|getApiRedPacketStatus)"
logging.disable(logging.CRITICAL)
books = {}
ports = {}


def book(name):
    return books.setdefault(name, {"paid": [], "seen": 0})


def listener():
    sock = socket.socket()
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    sock.bind(("127.0.0.1", 0))
    sock.listen(128)
    return sock


def in_background(run, *arguments, **named):
    threading.Thread(target=run, args=arguments, kwargs=named, daemon=True).start()


class QuietHandler(WSGIRequestHandler):
    def log_message(self, *_):
        pass


def counted(name, app):
    def counting(environ, start_response):
        book(name)["seen"] += 1
        return app(environ, start_response)

    return counting


def on_waitress(name, app):
    sock = listener()
    ports[name] = sock.getsockname()[1]
    in_background(waitress.serve, counted(name, app), sockets=[sock], threads=4, _quiet=True)


def on_wsgiref(name, app):
    server = make_server("127.0.0.1", 0, counted(name, app), WSGIServer, QuietHandler)
    ports[name] = server.server_port
    in_background(server.serve_forever)


# Without a framework.
def same(path):
    return any(call.casefold() == unicodedata.normalize("NFKC", path).casefold() for call in CALLS)


def plain(name, is_call):
    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def answer(self):
            book(name)["seen"] += 1
            self.rfile.read(int(self.headers.get("content-length", 0)))
            try:
                pays = is_call(self.path)
            except ValueError:
                pays = False
            if pays:
                book(name)["paid"].append(self.path)
            body = b"paid" if pays else b"other"
            self.send_response(200)
            self.send_header("content-length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        do_GET = do_POST = answer

        def log_message(self, *_):
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.daemon_threads = True
    ports[name] = server.server_port
    in_background(server.serve_forever)


plain("python-exact", lambda target: target.split("?")[0] in CALLS)
plain("python-urlsplit", lambda target: same(urllib.parse.unquote(urllib.parse.urlsplit(target).path)))
plain("python-unquote-drop", lambda target: same(urllib.parse.unquote(target.split("?")[0], errors="ignore").replace("\0", "")))
plain("python-urljoin", lambda target: urllib.parse.urlsplit(urllib.parse.urljoin("http://backend/", target)).path in CALLS)
plain("python-anywhere", lambda target: any(name in urllib.parse.unquote(urllib.parse.unquote(target)) for name in NAMES))
plain("python-regex", lambda target: re.search(f"/pay/{EITHER}", urllib.parse.unquote(target), re.IGNORECASE))


# Django's settings belong to the process, so one application has every kind of route.
def django_app():
    name = "django"

    def pays(request, *_, **__):
        book(name)["paid"].append(request.get_full_path())
        return HttpResponse("paid")

    class Urls:
        urlpatterns = [
            *(django_path(call.lstrip("/"), pays) for call in CALLS),
            *(django_path(call.lstrip("/") + "/", pays) for call in CALLS),
            django_re_path(rf"(?i)^pay/{EITHER}", pays),
            django_re_path(r"", lambda _: HttpResponse("other")),
        ]

    settings.configure(
        ROOT_URLCONF=Urls, ALLOWED_HOSTS=["*"], SECRET_KEY="none", MIDDLEWARE=["django.middleware.common.CommonMiddleware"]
    )
    django.setup()
    return WSGIHandler()


on_waitress("django", django_app())


def flask_app(name, strict):
    app = flask.Flask(name)

    def pays(**_):
        book(name)["paid"].append(flask.request.full_path)
        return "paid"

    def perhaps(path):
        return pays() if same(f"/{path}".rstrip("/")) else "other"

    if strict:
        for call in CALLS:
            app.add_url_rule(call, call, pays, methods=["GET", "POST"])
    else:
        app.url_map.strict_slashes = False
        app.url_map.merge_slashes = True
        app.add_url_rule("/<path:path>", "any", perhaps, methods=["GET", "POST"])
    app.register_error_handler(404, lambda _: "other")
    return app


on_waitress("flask", flask_app("flask", True))
on_waitress("flask-lenient", flask_app("flask-lenient", False))


def bottle_app(name, routes):
    app = bottle.Bottle()

    def pays(**_):
        book(name)["paid"].append(bottle.request.path)
        return "paid"

    for route in routes:
        app.route(route, ["GET", "POST"], pays)
    app.error(404)(lambda _: "other")
    return app


on_waitress("bottle", bottle_app("bottle", CALLS))
on_wsgiref("bottle-wsgiref", bottle_app("bottle-wsgiref", CALLS))
on_waitress("bottle-regex", bottle_app("bottle-regex", [f"/<path:re:(?i:.*pay/{EITHER}.*)>"]))


def starlette_app(name, lenient):
    async def pays(request):
        book(name)["paid"].append(str(request.url))
        return starlette.responses.PlainTextResponse("paid")

    async def perhaps(request):
        if same("/" + request.path_params["path"].rstrip("/")):
            return await pays(request)
        return starlette.responses.PlainTextResponse("other")

    async def other(_):
        return starlette.responses.PlainTextResponse("other")

    route = starlette.routing.Route
    methods = ["GET", "POST"]
    routes = [] if lenient else [route(call, pays, methods=methods) for call in CALLS]
    routes.append(route("/{path:path}", perhaps if lenient else other, methods=methods))
    app = starlette.applications.Starlette(routes=routes)

    async def counting(scope, receive, send):
        book(name)["seen"] += scope["type"] == "http"
        await app(scope, receive, send)

    sock = listener()
    ports[name] = sock.getsockname()[1]
    server = uvicorn.Server(uvicorn.Config(counting, http="h11", lifespan="off", log_config=None))
    server.install_signal_handlers = lambda: None
    in_background(lambda: asyncio.run(server.serve(sockets=[sock])))


starlette_app("starlette", False)
starlette_app("starlette-lenient", True)


def on_tornado(name, patterns):
    class Pays(tornado.web.RequestHandler):
        def prepare(self):
            book(name)["seen"] += 1
            book(name)["paid"].append(self.request.uri)
            self.finish("paid")

    class Other(tornado.web.RequestHandler):
        def prepare(self):
            book(name)["seen"] += 1
            self.finish("other")

    sock = listener()
    sock.setblocking(False)
    ports[name] = sock.getsockname()[1]

    async def run():
        app = tornado.web.Application([*((pattern, Pays) for pattern in patterns), (r".*", Other)])
        tornado.httpserver.HTTPServer(app).add_sockets([sock])
        await asyncio.Event().wait()

    in_background(lambda: asyncio.run(run()))


on_tornado("tornado", CALLS)
on_tornado("tornado-regex", [rf"(?i).*/pay/{EITHER}.*"])


class Control(BaseHTTPRequestHandler):
    def do_GET(self):
        self.send_response(200)
        self.end_headers()
        self.wfile.write(json.dumps(books).encode())

    def log_message(self, *_):
        pass


for name in ports:
    book(name)
control = ThreadingHTTPServer(("127.0.0.1", 0), Control)
in_background(control.serve_forever)
print(json.dumps({"control": control.server_port, "routers": ports}), flush=True)
sys.stdin.read()
