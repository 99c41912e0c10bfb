// Follows a block at the gateway whose address is the first argument until it is
// confirmed and certified, over REST with @iota/iota.js and over WebSocket with
// @iota/mqtt.js, and ends with an error at the first answer that programs could
// not live with. The packages are those of HEDGEROW_NODE_MODULES.
import assert from "node:assert/strict";
import { createRequire } from "node:module";
import path from "node:path";
import { setTimeout as pause } from "node:timers/promises";

const require = createRequire(path.join(process.env.HEDGEROW_NODE_MODULES, "client.cjs"));
const { SingleNodeClient, TAGGED_DATA_PAYLOAD_TYPE, milestoneIdFromMilestonePayload } = require("@iota/iota.js");
const { Ed25519 } = require("@iota/crypto.js");
const { Converter } = require("@iota/util.js");
const { MqttClient } = require("@iota/mqtt.js");

const [endpoint] = process.argv.slice(2);
const rest = new SingleNodeClient(endpoint);
const events = new MqttClient(endpoint.replace(/^http/, "ws") + "/api/mqtt/v1");

// The messages of a subscription of the package, as they come.
function messages(subscribe) {
	const got = [];
	let wake = () => {};
	subscribe((_, data) => { got.push(data); wake(); });
	return {
		async find(ok) {
			for (let seen = 0; ; seen++) {
				while (seen === got.length) await new Promise((resolve) => { wake = resolve; });
				if (ok(got[seen])) return got[seen];
			}
		},
	};
}

// until asks again until there is an answer: 503 says that a milestone is not
// certified yet.
async function until(ask) {
	for (;;) {
		try {
			return await ask();
		} catch (e) {
			assert.equal(e.httpStatus, 503);
			await pause(20);
		}
	}
}

const confirmed = messages((f) => events.milestonesConfirmed(f));
const certified = messages((f) => events.milestone(f));
const referenced = messages((f) => events.blocksReferenced(f));
const connected = new Promise((resolve) => events.statusChanged((s) => { if (s.type === "connect") resolve(); }));
await connected;
await pause(200); // the subscriptions follow the connection, and are not answered for

const id = await rest.blockSubmit({
	payload: { type: TAGGED_DATA_PAYLOAD_TYPE, tag: Converter.utf8ToHex("npm", true), data: Converter.utf8ToHex("followed", true) },
});
const own = messages((f) => events.blocksMetadata(id, f));

const metadata = await own.find((m) => m.referencedByMilestoneIndex !== undefined);
assert.equal(metadata.blockId, id);
assert.equal(metadata.isSolid, true);
assert.equal(metadata.ledgerInclusionState, "noTransaction");
const index = metadata.referencedByMilestoneIndex;
assert.equal((await referenced.find((m) => m.blockId === id)).referencedByMilestoneIndex, index);
const told = await confirmed.find((m) => m.index === index);
assert.match(told.milestoneId, /^0x[0-9a-f]{64}$/);

// REST says the same.
const answered = await rest.blockMetadata(id);
for (const key of ["blockId", "referencedByMilestoneIndex", "ledgerInclusionState", "isSolid", "parents"]) {
	assert.deepEqual(answered[key], metadata[key], key);
}
const { confirmedMilestone } = (await rest.info()).status;
assert.ok(confirmedMilestone.index >= index);
const milestone = await until(() => rest.milestoneByIndex(index));
assert.equal(milestone.index, index);
assert.equal(milestoneIdFromMilestonePayload(milestone), told.milestoneId, "the event has the milestone's id");
assert.equal(milestone.timestamp, told.timestamp);
assert.deepEqual(await rest.milestoneById(told.milestoneId), milestone);
const { options, ...event } = await certified.find((m) => m.index === index);
assert.deepEqual(event, milestone, "the event is the milestone");
assert.deepEqual(options, []);
assert.ok(milestone.signatures.length > 0);
for (const { publicKey, signature } of milestone.signatures) {
	const [key, message, sig] = [publicKey, told.milestoneId, signature].map((hex) => Converter.hexToBytes(hex));
	assert.ok(Ed25519.verify(key, message, sig), "the signature is one of the id");
}

// So does the proof of inclusion.
const proof = await rest.fetchJson("/api/poi/v1/", "get", `create/${id}`);
assert.deepEqual(proof.milestone, milestone);
assert.deepEqual(await rest.fetchJson("/api/poi/v1/", "post", "validate", proof), { valid: true });

console.log("ok");
process.exit(0); // the package keeps a timer
