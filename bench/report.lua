-- What wrk measured, as one line of JSON; times in milliseconds.
done = function(summary, latency)
    local bad = summary.errors
    io.write(string.format('{"per_second": %.1f, "p50": %.3f, "p99": %.3f, "bad": %d}\n',
        summary.requests / summary.duration * 1e6, latency:percentile(50) / 1e3, latency:percentile(99) / 1e3,
        bad.connect + bad.read + bad.write + bad.status + bad.timeout))
end
