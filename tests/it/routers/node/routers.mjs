// Backends on Node.js that pay: each serves the contract's two calls in its framework's default or most lenient mode.
// Prints {"control": port, "routers": {name: port}}; the control port answers {name: {"paid": [url], "seen": count}}.
// Exits when its standard input closes.
import http from "node:http";
import express from "express";
import Fastify from "fastify";
import Hapi from "@hapi/hapi";
import Koa from "koa";
import KoaRouter from "@koa/router";
import legacy from "node:url";
import { Hono } from "hono";
import { getRequestListener } from "@hono/node-server";

const CALLS = ["/pay/sendApiRedPack", "/pay/getApiRedPacketStatus"];
const NAMES = CALLS.map((path) => path.slice("/pay/".length));
const seen = {};
const ports = {};

/** Serves what `make` returns under a name. `make` gets a function that records a payment; its routes call that. */
async function serve(name, make) {
    const book = (seen[name] = { paid: [], seen: 0 });
    const listener = await make((url) => book.paid.push(url));
    const server = http.createServer((request, response) => {
        book.seen += 1;
        listener(request, response);
    });
    await new Promise((resolve) => server.listen(0, "127.0.0.1", resolve));
    ports[name] = server.address().port;
}

/** A server without a framework: it pays if `isCall` accepts the request's target. */
const plain = (isCall) => (pay) => (request, response) => {
    let pays = false;
    try {
        pays = isCall(request.url);
    } catch {
        // It does not pay a target that it cannot parse.
    }
    if (pays) pay(request.url);
    response.end(pays ? "paid" : "other");
};
const same = (path) => CALLS.some((call) => call.toLowerCase() === path.toLowerCase().normalize("NFKC").toLowerCase());

await serve("node-exact", plain((url) => CALLS.includes(url.split("?")[0])));
await serve("node-new-url", plain((url) => CALLS.includes(new URL(url, "http://backend").pathname)));
await serve("node-new-url-decoded", plain((url) => same(decodeURIComponent(new URL(url, "http://backend").pathname))));
await serve("node-url-parse", plain((url) => CALLS.includes(legacy.parse(url).pathname)));
await serve("node-unescape", plain((url) => same(unescape(url.split("?")[0]).replace(/\0/g, ""))));
await serve("node-any-segment", plain((url) => decodeURIComponent(url).split(/[/?#]/).some((part) => NAMES.includes(part))));
await serve("node-front-controller", plain((url) => {
    const query = new URL(url, "http://backend").searchParams;
    return ["r", "s", "_url", "path"].some((name) => CALLS.includes(`/${(query.get(name) ?? "").replace(/^\/+/, "")}`));
}));
await serve("node-dashes", plain((url) => {
    const path = decodeURIComponent(new URL(url, "http://backend").pathname);
    return CALLS.includes(path.replace(/[-_](\w)/g, (_, letter) => letter.toUpperCase()));
}));

const paysIn = (pay) => (request, response) => {
    pay(request.url);
    response.end("paid");
};
const onExpress = (settings, routes) => (pay) => {
    const app = express();
    for (const [name, value] of Object.entries(settings)) app.set(name, value);
    routes(app, paysIn(pay));
    app.use((_, response) => response.end("other"));
    app.use((_error, _request, response, _next) => response.status(400).end("other"));
    return app;
};
await serve("express", onExpress({}, (app, pays) => CALLS.forEach((path) => app.all(path, pays))));
await serve("express-strict", onExpress({ "case sensitive routing": true, "strict routing": true }, (app, pays) => CALLS.forEach((path) => app.all(path, pays))));
await serve("express-prefix", onExpress({}, (app, pays) => CALLS.forEach((path) => app.use(path, pays))));
await serve("express-regex", onExpress({}, (app, pays) => app.all(/\/(sendApiRedPack|getApiRedPacketStatus)/iu, pays)));
await serve("express-parameter", onExpress({}, (app, pays) => app.all("/pay/:call", (request, response, next) =>
    (NAMES.some((name) => name.toLowerCase() === request.params.call.normalize("NFKC").toLowerCase()) ? pays(request, response) : next()))));

const onFastify = (options, paths) => async (pay) => {
    let handle;
    const app = Fastify({ ...options, serverFactory: (handler) => { handle = handler; return http.createServer(handler); } });
    for (const path of paths) app.all(path, (request, reply) => { pay(request.raw.url); reply.send("paid"); });
    app.setNotFoundHandler((_, reply) => reply.send("other"));
    await app.ready();
    return handle;
};
const lenient = { caseSensitive: false, ignoreTrailingSlash: true, ignoreDuplicateSlashes: true, useSemicolonDelimiter: true };
await serve("fastify", onFastify({}, CALLS));
await serve("fastify-lenient", onFastify(lenient, CALLS));
await serve("fastify-wildcard", onFastify(lenient, CALLS.map((path) => `${path}*`)));

const onKoa = (options, paths) => (pay) => {
    const router = new KoaRouter(options);
    for (const path of paths) router.all(path, (context) => { pay(context.req.url); context.body = "paid"; });
    const app = new Koa();
    app.silent = true;
    app.use(router.routes());
    app.use((context) => { context.body = "other"; });
    return app.callback();
};
await serve("koa", onKoa({}, CALLS));
await serve("koa-regex", onKoa({ sensitive: false, strict: false }, [/\/(sendApiRedPack|getApiRedPacketStatus)/i]));

const onHapi = (router) => async (pay) => {
    const server = Hapi.server({ router, autoListen: false, listener: http.createServer() });
    for (const path of CALLS) server.route({ method: "*", path, handler: (request) => { pay(request.raw.req.url); return "paid"; } });
    server.route({ method: "*", path: "/{any*}", handler: () => "other" });
    await server.initialize();
    return (request, response) => server.listener.emit("request", request, response);
};
await serve("hapi", onHapi({}));
await serve("hapi-lenient", onHapi({ isCaseSensitive: false, stripTrailingSlash: true }));

const onHono = (strict, paths) => (pay) => {
    const app = new Hono({ strict });
    for (const path of paths) app.all(path, (context) => { pay(context.req.url); return context.text("paid"); });
    app.all("*", (context) => context.text("other"));
    return getRequestListener(app.fetch);
};
await serve("hono", onHono(true, CALLS));
await serve("hono-lenient", onHono(false, CALLS.map((path) => `${path}/*`)));

const control = http.createServer((_, response) => response.end(JSON.stringify(seen)));
control.listen(0, "127.0.0.1", () => console.log(JSON.stringify({ control: control.address().port, routers: ports })));
process.stdin.on("end", () => process.exit(0)).resume();
