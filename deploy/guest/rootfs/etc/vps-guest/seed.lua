-- The three files of a NoCloud seed become lines of words, one thing to do each:
-- what the shell reads must not need quoting, so a word that is not given is "-".
-- Lua because it starts at once: jq takes most of a second in an emulated guest.
local cjson = require("cjson")
local folder = arg[1]

local function say(...)
    local words = {}
    for i = 1, select("#", ...) do
        local word = select(i, ...)
        local kind = type(word)
        if kind == "number" then word = string.format("%.14g", word)
        elseif kind ~= "string" or word == "" then word = "-" end
        words[i] = word:gsub("%c", " ")
    end
    print(table.concat(words, "\t"))
end

-- Whatever was expected to be an object or a list and is not, is an empty one.
local function of(value, key)
    local found = type(value) == "table" and value[key] or nil
    return type(found) == "table" and found or {}
end

local function only(kind, list)
    local kept = {}
    for _, value in ipairs(list) do
        if type(value) == kind and value ~= "" then kept[#kept + 1] = value end
    end
    return kept
end

local function strings(list) return only("string", list) end

local function parsed(name)
    local file = io.open(folder .. "/" .. name)
    local text = file and file:read("a") or ""
    local fine, value = pcall(cjson.decode, (text:gsub("^#cloud%-config", "")))
    if fine and type(value) == "table" and #value == 0 then return value end
    say("broken", name)
    return {}
end

local meta = parsed("meta-data")
local user = parsed("user-data")
local network = parsed("network-config")
if type(network.network) == "table" then network = network.network end

for _, id in ipairs(strings({meta["instance-id"] or false})) do say("instance", id) end
local names = strings({meta["local-hostname"] or false, user.fqdn or false, user.hostname or false})
if names[1] then say("hostname", names[1]) end

for _, key in ipairs(strings(of(user, "ssh_authorized_keys"))) do say("key", key) end
for _, somebody in ipairs(only("table", of(user, "users"))) do
    if somebody.name == "root" then
        for _, key in ipairs(strings(of(somebody, "ssh_authorized_keys"))) do say("key", key) end
    end
end

local everywhere = {["0.0.0.0/0"] = "default", ["::/0"] = "default"}
local nics = of(network, "ethernets")
local order = {}
for name in pairs(nics) do order[#order + 1] = name end
table.sort(order)
for _, name in ipairs(order) do
    local nic = of(nics, name)
    local mac = of(nic, "match").macaddress
    say("nic", name, type(mac) == "string" and mac:lower() or nil, nic["set-name"], nic.mtu)
    for _, address in ipairs(strings(of(nic, "addresses"))) do say("address", address) end
    for _, route in ipairs(only("table", of(nic, "routes"))) do
        say("route", everywhere[route.to] or route.to, route.via, route["on-link"] == true and "onlink" or nil)
    end
    for _, gateway in ipairs(strings({nic.gateway6 or false})) do say("route", "default", gateway) end
    for _, server in ipairs(strings(of(of(nic, "nameservers"), "addresses"))) do say("dns", server) end
    for _, domain in ipairs(strings(of(of(nic, "nameservers"), "search"))) do say("search", domain) end
end
