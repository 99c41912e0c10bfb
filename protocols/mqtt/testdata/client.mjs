// Talks to the broker over WebSocket as programs that use the packages mqtt and
// @iota/mqtt.js do, and ends with an error at the first answer they could not
// live with. Arguments: the address for devices, and that for events. The
// packages are those of HEDGEROW_NODE_MODULES.
import assert from "node:assert/strict";
import { createRequire } from "node:module";
import path from "node:path";

const require = createRequire(path.join(process.env.HEDGEROW_NODE_MODULES, "client.cjs"));
const mqtt = require("mqtt");
const { MqttClient } = require("@iota/mqtt.js");

const [devices, events] = process.argv.slice(2);

async function device(options) {
	const client = await mqtt.connectAsync(devices, { clientId: `npm-${options.protocolVersion}`, reconnectPeriod: 0, ...options });
	const topic = `readings/npm-${options.protocolVersion}/count`;
	const got = [];
	const all = new Promise((resolve) => client.on("message", (t, payload) => {
		assert.equal(t, topic);
		if (got.push(payload.toString()) === 3) resolve();
	}));
	await client.subscribeAsync(topic, { qos: 2 });
	for (const qos of [0, 1, 2]) await client.publishAsync(topic, String(qos), { qos });
	await all;
	assert.deepEqual(got.sort(), ["0", "1", "2"]);
	await client.endAsync();
}

async function stranger(protocolVersion) {
	const client = await mqtt.connectAsync(events, { protocolVersion, reconnectPeriod: 0, username: "probe", password: "guess" });
	for (const filter of ["#", "readings/#", "commands/#", "$SYS/#"]) {
		await assert.rejects(async () => {
			const [granted] = await client.subscribeAsync(filter);
			assert.ok(granted.qos < 128);
		}, undefined, `${filter} is refused`);
	}
	await client.endAsync();
}

// What each subscription of the package brings, in the order of the test's events.
async function subscriber() {
	const client = new MqttClient(events);
	const wanted = {
		milestonesLatest: client.milestonesLatest.bind(client),
		blocksRaw: client.blocksRaw.bind(client),
		blocksTaggedRaw: (f) => client.blocksTaggedRaw("0x6162", f),
		blocksReferenced: client.blocksReferenced.bind(client),
		outputSpent: (f) => client.outputSpentByConditionAndAddress("address", "hdg1a", f),
	};
	const got = await Promise.all(Object.entries(wanted).map(([name, subscribe]) =>
		new Promise((resolve) => subscribe((_, data) => resolve([name, data])))));
	const of = Object.fromEntries(got);
	assert.deepEqual(of.milestonesLatest, { index: 7 });
	assert.equal(Buffer.from(of.blocksRaw).toString(), "block");
	assert.equal(Buffer.from(of.blocksTaggedRaw).toString(), "tagged");
	assert.deepEqual(of.blocksReferenced, { isSolid: true });
	assert.deepEqual(of.outputSpent, { isSpent: true });
}

for (const options of [{ protocolId: "MQIsdp", protocolVersion: 3 }, { protocolVersion: 4 }, { protocolVersion: 5 }]) await device(options);
for (const version of [4, 5]) await stranger(version);
await subscriber();
console.log("ok");
process.exit(0); // the package keeps a timer
