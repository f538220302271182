# The three files of a NoCloud seed become lines of words, one thing to do each.
# jq takes long to start in a slow guest, so it is started once for all of them.
# Numbers and "" would confuse the shell that reads this: "-" means "not given".

def parsed($name): try (fromjson | if type == "object" then . else error("no") end) catch {broken: $name};
def word: if . == null or . == "" then "-" else tostring end;
def words: map(word) | @tsv;

($meta | parsed("meta-data")) as $meta
| ($user | ltrimstr("#cloud-config") | parsed("user-data")) as $user
| ($network | parsed("network-config") | .network? // .) as $network
| ($meta, $user, $network | .broken? // empty | ["broken", .]),
  ["instance", ($meta["instance-id"]? // "none")],
  ([$meta["local-hostname"]?, $user.fqdn?, $user.hostname?] | map(strings | select(. != "")) | first // empty | ["hostname", .]),
  (($user.ssh_authorized_keys[]?, ($user.users[]? | objects | select(.name == "root") | .ssh_authorized_keys[]?))
    | strings | ["key", .]),
  ($network.ethernets? // {} | objects | to_entries[] | .key as $name | .value | objects
    | ["nic", $name, (.match.macaddress? | strings | ascii_downcase) // null, .["set-name"]?, .mtu?],
      (.addresses[]? | strings | ["address", .]),
      (.routes[]? | objects
        | ["route", (if .to == "0.0.0.0/0" or .to == "::/0" then "default" else .to end), .via,
           (if .["on-link"] == true then "onlink" else null end)]),
      (.nameservers.addresses[]? | strings | ["dns", .]),
      (.nameservers.search[]? | strings | ["search", .]))
| words
