package gateway

import (
	"path/filepath"
	"time"

	"github.com/hedgerow-iot/hedgerow/gateway/bus"
)

// The configuration file: one struct per section, one field per key. The doc
// comments are the manual: deploy/hedgerow.yaml and
// deploy/docs/configuration.md are generated from them. A min or max tag
// bounds a value, oneof lists the words a key takes.

// Config is the configuration of a gateway. Load or Default returns one that
// is complete; every field holds its default unless the file says otherwise.
type Config struct {
	// Name of this gateway in its network: 1 to 32 letters, digits, dots,
	// underscores and hyphens. It stands in every reading's id and cannot
	// change once data_dir holds readings.
	Name string `yaml:"name"`
	// Directory of the two stores, journal and ledger. Created when missing.
	// Copy it with hedgerow backup, and keep a copy of the identity key elsewhere.
	DataDir Path `yaml:"data_dir"`
	// The gateway's Ed25519 key (PEM, PKCS #8), which signs its batches. A
	// missing file is made at the first start, together with its public half
	// beside it (.pub).
	Identity Secret `yaml:"identity"`
	// Network file. Empty: a network of one, made at the first start as
	// network.json in data_dir.
	Network Path `yaml:"network"`
	// Logs go to stderr.
	Log LogConfig `yaml:"log"`
	// MQTT 3.1.1 and 5, over TCP and WebSocket.
	MQTT MQTTConfig `yaml:"mqtt"`
	// CoAP over UDP.
	CoAP CoAPConfig `yaml:"coap"`
	// The store in which a reading becomes durable before it is acknowledged.
	Journal JournalConfig `yaml:"journal"`
	// How readings are grouped into Tangle blocks.
	Batching BatchingConfig `yaml:"batching"`
	// Proof of work.
	Powfarm PowfarmConfig `yaml:"powfarm"`
	// The replica of the Tangle.
	Ledger LedgerConfig `yaml:"ledger"`
	// The other gateways of the network, over NATS. With the defaults the
	// gateway is alone and opens no port for it. Readings are confirmed while
	// a quorum reach each other; how often they vote says the network file.
	Peers PeersConfig `yaml:"peers"`
	// HTTP: the protocol's REST routes, the admin routes, metrics and health.
	API APIConfig `yaml:"api"`
	// How the gateway stops.
	Shutdown ShutdownConfig `yaml:"shutdown"`

	// File is where [Load] read it; empty: nowhere.
	File string `yaml:"-"`
	// Home is set in the sandbox only: the directory that holds everything of
	// it. Devices are then admitted without login from loopback addresses,
	// and a taken port is replaced by a free one.
	Home string `yaml:"-"`
}

// LogConfig is the section log.
type LogConfig struct {
	// Least level that is logged.
	Level string `yaml:"level" oneof:"debug info warn error"`
	// Form of a line.
	Format string `yaml:"format" oneof:"text json"`
}

// MQTTConfig is the section mqtt.
type MQTTConfig struct {
	// Addresses for plain TCP, host:port. Empty: none.
	Listen []string `yaml:"listen"`
	// MQTT over WebSocket, for devices and pages that cannot open a plain
	// connection. Events for everybody stand at /api/mqtt/v1 of api.listen
	// instead.
	WebSocket WebSocketConfig `yaml:"websocket"`
	// Admit devices without login. They may publish readings of any device.
	Anonymous bool `yaml:"anonymous"`
	// Allow plain listeners beyond loopback. Whoever shares the network can
	// then read and forge what devices send.
	Insecure bool `yaml:"insecure"`
	// What one client may cost.
	Limits MQTTLimits `yaml:"limits"`
}

// WebSocketConfig is the section mqtt.websocket.
type WebSocketConfig struct {
	// Addresses for plain WebSocket, host:port, such as 127.0.0.1:9001.
	// Empty: none.
	Listen []string `yaml:"listen"`
	// Path that is served.
	Path string `yaml:"path"`
	// Origins of pages in browsers that may connect, such as
	// https://farm.example.org, or "*" for any. Clients that are no browsers
	// need none.
	Origins []string `yaml:"origins"`
}

// MQTTLimits is the section mqtt.limits.
type MQTTLimits struct {
	// Largest packet of a client that has logged in.
	Packet Size `yaml:"packet" min:"1KiB" max:"16MiB"`
	// Largest packet before login, the CONNECT packet included.
	PacketBeforeLogin Size `yaml:"packet_before_login" min:"256" max:"64KiB"`
	// Most connections at once.
	Connections int `yaml:"connections" min:"1" max:"100000"`
	// Most connections from one address.
	PerAddress int `yaml:"per_address" min:"1" max:"100000"`
	// Most unacknowledged publishes of one client (receive maximum).
	Inflight int `yaml:"inflight" min:"1" max:"256"`
	// Longest time from connecting to a complete CONNECT packet.
	ConnectTimeout Duration `yaml:"connect_timeout" min:"1s" max:"5m"`
}

// CoAPConfig is the section coap.
type CoAPConfig struct {
	// Addresses for UDP, host:port. An empty list turns CoAP off.
	Listen []string `yaml:"listen"`
	// Admit devices without login. They may send readings of any device.
	Anonymous bool `yaml:"anonymous"`
	// Allow plain listeners beyond loopback. Whoever shares the network can
	// then read and forge what devices send.
	Insecure bool `yaml:"insecure"`
	// What one endpoint may cost.
	Limits CoAPLimits `yaml:"limits"`
}

// CoAPLimits is the section coap.limits.
type CoAPLimits struct {
	// Largest body. One datagram holds at most about 64KiB.
	Body Size `yaml:"body" min:"64" max:"60KiB"`
	// Most addresses that are remembered at once.
	Endpoints int `yaml:"endpoints" min:"16" max:"1000000"`
}

// JournalConfig is the section journal.
type JournalConfig struct {
	// Longest time a reading waits for company before a sync, only under
	// load. A lone reading is synced at once.
	Linger Duration `yaml:"linger" min:"0s" max:"1s"`
	// Most bytes of the journal on disk. Near it the oldest certified readings
	// are dropped; at it intake is refused.
	MaxDisk Size `yaml:"max_disk" min:"64MiB" max:"16TiB"`
	// How long certified readings are kept in the journal, for queries by
	// device and time. One that is not certified is never dropped, and neither
	// is any after it.
	Retention Duration `yaml:"retention" min:"1h" max:"36500d"`
	// Free disk space below which intake is refused.
	Reserve Size `yaml:"reserve" min:"16MiB" max:"1TiB"`
}

// BatchingConfig is the section batching.
type BatchingConfig struct {
	// Longest time a reading waits for its batch to be sealed.
	MaxAge Duration `yaml:"max_age" min:"10ms" max:"1h"`
	// Size of a block at which its batch is sealed. auto: just below a step
	// of the proof of work, larger when the backlog grows.
	Target AutoSize `yaml:"target" min:"1KiB" max:"32KiB"`
	// Most readings in one batch.
	MaxReadings int `yaml:"max_readings" min:"1" max:"10000"`
}

// PowfarmConfig is the section powfarm.
type PowfarmConfig struct {
	// Worker threads. auto leaves intake a core; 0 is none, and readings then
	// stay batched.
	Workers AutoInt `yaml:"workers" min:"0" max:"1024"`
	// Search kernel. auto takes the fastest this machine can run; go runs
	// everywhere.
	Kernel string `yaml:"kernel" oneof:"auto avx512 avx2 go"`
	// How old the parents of a block may grow while its nonce is searched.
	TipRefresh Duration `yaml:"tip_refresh" min:"50ms" max:"10m"`
	// Proof of work for and by other boxes, over the NATS connection of
	// peers. Digests go out, never payloads.
	Remote RemoteConfig `yaml:"remote"`
}

// RemoteConfig is the section powfarm.remote.
type RemoteConfig struct {
	// Search nonces for other gateways of the network, behind our own work.
	Serve bool `yaml:"serve"`
	// Let others search when our own workers are busy or none.
	Use bool `yaml:"use"`
	// Public keys (0x and 64 hex digits) of the workers that are no gateways.
	// Only they and members are believed, and let in at peers.clients.
	Workers []string `yaml:"workers"`
}

// LedgerConfig is the section ledger.
type LedgerConfig struct {
	// What is kept of the ledger.
	Retention LedgerRetention `yaml:"retention"`
}

// LedgerRetention is the section ledger.retention.
type LedgerRetention struct {
	// How long the bodies of blocks are kept after they are certified: batches
	// of all gateways, transactions and what others hand in. A reading whose
	// block is gone has no proof any more.
	Blocks Duration `yaml:"blocks" min:"10s" max:"36500d"`
	// How long those of votes are kept. Nobody reads them; a gateway that was
	// away for longer takes over what the others have agreed on meanwhile.
	Votes Duration `yaml:"votes" min:"10s" max:"36500d"`
	// Most bytes of the ledger on disk. Near it bodies of certified blocks are
	// dropped before their time: votes, then what others handed in, then the
	// oldest. At it blocks are refused, and once the journal is full too, so is
	// intake.
	MaxDisk Size `yaml:"max_disk" min:"64MiB" max:"16TiB"`
}

// PeersConfig is the section peers.
type PeersConfig struct {
	// embedded: a NATS server in this process, alone or meshed with those of
	// other gateways. external: client of a NATS cluster, or of another
	// gateway's peers.clients.
	Mode string `yaml:"mode" oneof:"embedded external"`
	// Address for the routes of other gateways' servers, host:port, such as
	// ":6222". Empty: no mesh. Only with mode embedded.
	Listen string `yaml:"listen"`
	// Addresses of other gateways' peers.listen, such as tls://10.0.0.8:6222.
	// One is enough for the mesh to form; name all for it to heal by itself
	// after any outage. Only with peers.listen.
	Routes []string `yaml:"routes"`
	// Addresses of the external cluster, comma-separated, such as
	// tls://nats.example.org:4222. nats:// does not insist on TLS: blocks can
	// then be read on the way, though not forged.
	URL string `yaml:"url"`
	// Address for remote workers and for members without a route, host:port,
	// such as ":4222". They are known by their keys. Empty: none. Only with
	// mode embedded.
	Clients string `yaml:"clients"`
	// This gateway's credentials at the external cluster: a .creds file or
	// the seed of an nkey. Empty: none.
	Credentials Secret `yaml:"credentials"`
	// Certificates. Empty: made in memory from the identity key, and pinned
	// to the identity keys of the members, whatever the clock says.
	TLS PeersTLS `yaml:"tls"`
}

// PeersTLS is the section peers.tls.
type PeersTLS struct {
	// Certificate of this gateway (PEM). With mode embedded the three go
	// together; routes are then known by the authority, no longer by their
	// identity keys.
	Certificate Path `yaml:"certificate"`
	// Its private key (PEM).
	Key Secret `yaml:"key"`
	// Certificates of the authority (PEM) that the other side must show.
	// With mode external and empty: a member's key or the system's
	// authorities.
	CA Path `yaml:"ca"`
}

// APIConfig is the section api.
type APIConfig struct {
	// Address for HTTP, host:port.
	Listen string `yaml:"listen"`
	// The bearer token of the admin routes, at least 16 characters. A missing
	// file is made at the first start.
	Token Secret `yaml:"token"`
	// Serve the protocol's routes (/api/core/v2), and its events (/api/mqtt/v1),
	// without token.
	Public bool `yaml:"public"`
	// Allow the plain listener beyond loopback. Whoever shares the network
	// can then read the token.
	Insecure bool `yaml:"insecure"`
	// Blocks that clients hand in without the token.
	ThirdParty ThirdPartyConfig `yaml:"third_party"`
}

// ThirdPartyConfig is the section api.third_party.
type ThirdPartyConfig struct {
	// Find the nonce of a block that comes without, behind everything else
	// that the farm has to do. false: blocks bring their own.
	PoW bool `yaml:"pow"`
	// Blocks of one client (an IPv4 address or an IPv6 /64), on average; ten
	// may come at once. What comes too early waits for up to 5s, and more is
	// answered 429. none: no bound. Above half of ledger.retention.max_disk
	// they are refused in any case.
	Rate Rate `yaml:"rate"`
}

// ShutdownConfig is the section shutdown.
type ShutdownConfig struct {
	// Longest time for sealing and attaching what was acknowledged, after the
	// first SIGTERM or SIGINT. The second one ends it. Nothing acknowledged
	// is lost either way.
	Drain Duration `yaml:"drain" min:"0s" max:"10m"`
}

// Default returns the configuration of an empty file.
func Default() Config {
	return Config{
		Name:     "gateway-1",
		DataDir:  "/var/lib/hedgerow",
		Identity: Secret{"file", "/etc/hedgerow/identity.key"},
		Log:      LogConfig{Level: "info", Format: "text"},
		MQTT: MQTTConfig{
			Listen:    []string{"127.0.0.1:1883"},
			WebSocket: WebSocketConfig{Listen: []string{}, Path: "/mqtt", Origins: []string{}},
			Limits: MQTTLimits{
				Packet: 256 << 10, PacketBeforeLogin: 4 << 10, Connections: 1000, PerAddress: 100,
				Inflight: 256, ConnectTimeout: Duration(10 * time.Second),
			},
		},
		CoAP: CoAPConfig{
			Listen: []string{"127.0.0.1:5683"},
			Limits: CoAPLimits{Body: 16 << 10, Endpoints: 4096},
		},
		Journal: JournalConfig{
			Linger: Duration(5 * time.Millisecond), MaxDisk: 2 << 30,
			Retention: Duration(400 * 24 * time.Hour), Reserve: 512 << 20,
		},
		Batching: BatchingConfig{MaxAge: Duration(2 * time.Second), Target: 0, MaxReadings: 1000},
		Powfarm:  PowfarmConfig{Workers: Auto, Kernel: "auto", TipRefresh: Duration(time.Second), Remote: RemoteConfig{Workers: []string{}}},
		Ledger: LedgerConfig{Retention: LedgerRetention{
			Blocks: Duration(90 * 24 * time.Hour), Votes: Duration(time.Hour), MaxDisk: 8 << 30,
		}},
		Peers: PeersConfig{Mode: string(bus.Embedded), Routes: []string{}},
		API: APIConfig{
			Listen: "127.0.0.1:14265", Token: Secret{"file", "admin.token"}, Public: true,
			ThirdParty: ThirdPartyConfig{PoW: true, Rate: 3600},
		},
		Shutdown: ShutdownConfig{Drain: Duration(10 * time.Second)},
	}
}

// Sandbox returns the configuration of a sandbox that keeps everything below
// the directory home: a network of one, loopback only, devices without login.
func Sandbox(home string) Config {
	c := Default()
	c.Home = home
	c.Name = "sandbox"
	c.DataDir = Path(filepath.Join(home, "data"))
	c.Identity = Secret{"file", filepath.Join(home, "identity.key")}
	c.API.Token = Secret{"file", filepath.Join(home, "admin.token")}
	c.API.ThirdParty.Rate = 0 // everybody on this machine is one client
	return c
}
