// What a customer's program does with the types that openapi-typescript made of docs/openapi.yaml.
//
// Usage: node use_client.js URL TOKEN.  Makes a server, waits for it, is refused something, and deletes the server.
import createClient from "openapi-fetch";
import type { components, paths } from "./schema.js";

const [url, token] = (globalThis as any).process.argv.slice(2) as [string, string];
const client = createClient<paths>({ baseUrl: url, headers: { Authorization: `Bearer ${token}` } });

function assert(condition: boolean, what: unknown): asserts condition {
  if (!condition) throw new Error(JSON.stringify(what));
}

const wanted: components["schemas"]["CreateServer"] = {
  name: "made-by-typescript",
  plan_id: 3,
  os_id: 5,
  location: "us-west",
};
const { data: made, error: unmade } = await client.POST("/api/v1/servers/", { body: wanted });
assert(made !== undefined, unmade);
const server_id = String(made.id);

const { data: history } = await client.GET("/api/v1/servers/{server_id}/operations/", { params: { path: { server_id } } });
let operation = history?.results[0];
while (operation?.status === "queued" || operation?.status === "running") {
  const asked = { params: { path: { operation_id: String(operation.id) }, query: { wait: 30 } } };
  operation = (await client.GET("/api/v1/operations/{operation_id}/", asked)).data;
}
assert(operation?.status === "succeeded", operation);

const { data: server } = await client.GET("/api/v1/servers/{server_id}/", { params: { path: { server_id } } });
assert(server?.status === "active" && server.plan.bandwidth > 0 && server.ip_address !== null, server);

const { error, response } = await client.POST("/api/v1/servers/{server_id}/start/", { params: { path: { server_id } } });
assert(response.status === 400 && error !== undefined && "code" in error && error.code === "already_running", error);

const { response: gone } = await client.DELETE("/api/v1/servers/{server_id}/", { params: { path: { server_id } } });
assert(gone.status === 204, gone.status);
