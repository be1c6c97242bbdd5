// Backends on Java's own HTTP server that pay: each recognises the contract's two calls in a different way.
// Prints {"control": port, "routers": {name: port}}; the control port answers {name: {"paid": [url], "seen": count}}.
// Exits when its standard input closes.

import com.sun.net.httpserver.HttpExchange;
import com.sun.net.httpserver.HttpServer;
import java.io.IOException;
import java.net.InetAddress;
import java.net.InetSocketAddress;
import java.net.URI;
import java.nio.charset.StandardCharsets;
import java.util.List;
import java.util.Map;
import java.util.Queue;
import java.util.TreeMap;
import java.util.concurrent.ConcurrentLinkedQueue;
import java.util.concurrent.Executors;
import java.util.concurrent.atomic.AtomicInteger;
import java.util.function.Predicate;
import java.util.regex.Pattern;
import java.util.stream.Collectors;

public class Routers {
    static final List<String> CALLS = List.of("/pay/sendApiRedPack", "/pay/getApiRedPacketStatus");

    record Book(int port, Queue<String> paid, AtomicInteger seen) {}

    static final Map<String, Book> BOOKS = new TreeMap<>();

    static HttpServer server() throws IOException {
        HttpServer server = HttpServer.create(new InetSocketAddress(InetAddress.getLoopbackAddress(), 0), 128);
        server.setExecutor(Executors.newFixedThreadPool(4));
        server.start();
        return server;
    }

    static void answer(HttpExchange exchange, String text) throws IOException {
        exchange.getRequestBody().readAllBytes();
        byte[] bytes = text.getBytes(StandardCharsets.UTF_8);
        exchange.sendResponseHeaders(200, bytes.length);
        exchange.getResponseBody().write(bytes);
        exchange.close();
    }

    static void serve(String name, List<String> contexts, Predicate<URI> isCall) throws IOException {
        HttpServer server = server();
        Book book = new Book(server.getAddress().getPort(), new ConcurrentLinkedQueue<>(), new AtomicInteger());
        BOOKS.put(name, book);
        for (String context : contexts) {
            server.createContext(context, exchange -> {
                book.seen().incrementAndGet();
                boolean pays;
                try {
                    pays = isCall.test(exchange.getRequestURI());
                } catch (RuntimeException unreadable) {
                    pays = false;
                }
                if (pays) {
                    book.paid().add(exchange.getRequestURI().toString());
                }
                answer(exchange, pays ? "paid" : "other");
            });
        }
        if (!contexts.contains("/")) {
            server.createContext("/", exchange -> {
                book.seen().incrementAndGet();
                answer(exchange, "other");
            });
        }
    }

    static String quoted(String text) {
        return '"' + text.replace("\\", "\\\\").replace("\"", "\\\"") + '"';
    }

    public static void main(String[] arguments) throws IOException {
        List<String> all = List.of("/");
        Pattern anyCase = Pattern.compile("/pay/(sendApiRedPack|getApiRedPacketStatus)", Pattern.CASE_INSENSITIVE | Pattern.UNICODE_CASE);
        serve("java-contexts", CALLS, uri -> true);
        serve("java-equals", all, uri -> CALLS.contains(uri.getPath()));
        serve("java-ignore-case", all, uri -> CALLS.stream().anyMatch(call -> call.equalsIgnoreCase(uri.getPath())));
        serve("java-normalized", all, uri -> CALLS.contains(URI.create("http://backend/").resolve(uri).normalize().getPath()));
        serve("java-regex", all, uri -> anyCase.matcher(uri.getPath()).find());
        HttpServer control = server();
        control.createContext("/", exchange -> answer(exchange, BOOKS.entrySet().stream()
            .map(entry -> quoted(entry.getKey()) + ":{\"paid\":["
                + entry.getValue().paid().stream().map(Routers::quoted).collect(Collectors.joining(","))
                + "],\"seen\":" + entry.getValue().seen() + "}")
            .collect(Collectors.joining(",", "{", "}"))));
        System.out.println("{\"control\":" + control.getAddress().getPort() + ",\"routers\":" + BOOKS.entrySet().stream()
            .map(entry -> quoted(entry.getKey()) + ":" + entry.getValue().port())
            .collect(Collectors.joining(",", "{", "}")) + "}");
        while (System.in.read() >= 0) {
            // Waits until standard input closes.
        }
        System.exit(0);
    }
}
