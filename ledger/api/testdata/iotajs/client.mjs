// Talks to the gateway whose address is the first argument as programs that use
// @iota/iota.js do, and ends with an error at the first answer they could not
// live with. The packages are those of HEDGEROW_NODE_MODULES.
import assert from "node:assert/strict";
import { createRequire } from "node:module";
import path from "node:path";

const require = createRequire(path.join(process.env.HEDGEROW_NODE_MODULES, "client.cjs"));
const {
	SingleNodeClient, sendData, retrieveData, retry, serializeBlock, TAGGED_DATA_PAYLOAD_TYPE,
	deserializeMilestonePayload, milestoneIdFromMilestonePayload,
} = require("@iota/iota.js");
const { Blake2b, Ed25519, PowHelper } = require("@iota/crypto.js");
const { Converter, ReadStream, WriteStream } = require("@iota/util.js");

const [endpoint] = process.argv.slice(2);

// The package has no proof of work of its own since 2.0: programs bring one.
const powProvider = {
	async pow(block, targetScore, powInterval) {
		const digest = Blake2b.sum256(block.slice(0, -8));
		return PowHelper.performPow(digest, PowHelper.calculateTargetZeros(block, targetScore), "1", powInterval);
	},
};
const thin = new SingleNodeClient(endpoint);
const own = new SingleNodeClient(endpoint, { powProvider });

function payload(text) {
	return { type: TAGGED_DATA_PAYLOAD_TYPE, tag: Converter.utf8ToHex("iota.js", true), data: Converter.utf8ToHex(text, true) };
}

function bytes(block) {
	const stream = new WriteStream();
	serializeBlock(stream, block);
	return stream.finalBytes();
}

async function readBack(client, id, text) {
	const raw = await client.blockRaw(id);
	assert.equal(Converter.bytesToHex(Blake2b.sum256(raw), true), id, "the bytes have the id that was answered");
	const block = await client.block(id);
	assert.deepEqual(bytes(block), raw, "JSON and bytes are one block");
	assert.equal(Converter.hexToUtf8(block.payload.data), text);
	const info = await client.info();
	assert.ok(PowHelper.score(raw) >= info.protocol.minPowScore, "the score suffices");
	const metadata = await client.blockMetadata(id);
	assert.equal(metadata.blockId, id);
	assert.deepEqual(metadata.parents, block.parents);
	assert.equal(metadata.isSolid, true);
	assert.ok(metadata.referencedByMilestoneIndex <= info.status.confirmedMilestone.index);
	assert.equal(metadata.ledgerInclusionState, "noTransaction");
	assert.equal(metadata.shouldPromote, undefined, "what is confirmed needs nothing");
	await assert.rejects(retry(client, id), /should not be promoted or reattached/);
	return block;
}

// The gateway of the test confirms every block by a milestone of its own.
async function readMilestone(client, index) {
	const milestone = await client.milestoneByIndex(index);
	assert.equal(milestone.index, index);
	const id = milestoneIdFromMilestonePayload(milestone);
	assert.deepEqual(await client.milestoneById(id), milestone, "the id is that of the essence");
	for (const raw of [await client.milestoneByIndexRaw(index), await client.milestoneByIdRaw(id)]) {
		const { options, ...fromBytes } = deserializeMilestonePayload(new ReadStream(raw));
		assert.deepEqual(fromBytes, milestone, "JSON and bytes are one milestone");
		assert.deepEqual(options, []);
	}
	for (const { publicKey, signature } of milestone.signatures) {
		const [key, message, sig] = [publicKey, id, signature].map((hex) => Converter.hexToBytes(hex));
		assert.ok(Ed25519.verify(key, message, sig), "the signature is one of the id");
	}
	return { id, milestone };
}

assert.equal(await thin.health(), true);
assert.ok((await thin.routes()).routes.includes("core/v2"));
const info = await thin.info();
assert.equal(info.status.isHealthy, true);
assert.equal(info.protocol.version, 2);
assert.deepEqual(await thin.protocolInfo(), info.protocol);
assert.ok((await thin.tips()).tips.length >= 1);

// The gateway chooses parents and nonce.
const first = await thin.blockSubmit({ payload: payload("by the gateway") });
await readBack(thin, first, "by the gateway");
assert.ok((await thin.tips()).tips.includes(first), "the block is a tip");

// The client does, and has the package check its block first.
const second = await own.blockSubmit({ payload: payload("by the client") }, undefined, undefined, true);
assert.notEqual((await readBack(own, second, "by the client")).nonce, "0");

// Bytes with parents: the gateway keeps them and finds the nonce; then the
// client finds it.
for (const client of [thin, own]) {
	const parents = (await client.tips()).tips;
	const text = client === thin ? "bytes, by the gateway" : "bytes, by the client";
	const id = await client.blockSubmitRaw(bytes({ protocolVersion: 2, parents, payload: payload(text), nonce: "0" }));
	assert.deepEqual((await readBack(client, id, text)).parents, parents);
}

// The helpers of the package.
const sent = await sendData(endpoint, "helper", "data");
const got = await retrieveData(endpoint, sent.blockId);
assert.equal(Converter.bytesToUtf8(got.data), "data");
assert.equal(Converter.bytesToUtf8(got.tag), "helper");

// Milestones follow one another, and info names the last.
const { latestMilestone, confirmedMilestone } = (await thin.info()).status;
assert.deepEqual(latestMilestone, confirmedMilestone);
const last = await readMilestone(thin, confirmedMilestone.index);
assert.deepEqual(confirmedMilestone, { index: last.milestone.index, timestamp: last.milestone.timestamp, milestoneId: last.id });
const before = await readMilestone(thin, confirmedMilestone.index - 1);
assert.equal(last.milestone.previousMilestoneId, before.id);
assert.deepEqual(last.milestone.parents, [sent.blockId]);

// A proof of inclusion is of that milestone, and holds.
assert.ok((await thin.routes()).routes.includes("poi/v1"));
const proof = await thin.fetchJson("/api/poi/v1/", "get", `create/${sent.blockId}`);
assert.deepEqual(proof.milestone, last.milestone);
assert.deepEqual(proof.block, await thin.block(sent.blockId));
assert.deepEqual(await thin.fetchJson("/api/poi/v1/", "post", "validate", proof), { valid: true });
proof.block.nonce = "1";
assert.equal((await thin.fetchJson("/api/poi/v1/", "post", "validate", proof)).valid, false);

// Errors arrive with their text.
const unknown = "0x" + "ab".repeat(32);
await assert.rejects(thin.block(unknown), (e) => e.httpStatus === 404 && e.message.includes(unknown));
await assert.rejects(thin.block("0x12"), (e) => e.httpStatus === 400 && e.message.includes("block id"));
await assert.rejects(thin.milestoneById(unknown), (e) => e.httpStatus === 404 && e.message.includes(unknown));
await assert.rejects(thin.milestoneByIndex(1e6), (e) => e.httpStatus === 404 && e.message.includes("1000000"));
await assert.rejects(thin.blockSubmit({ parents: [unknown], payload: payload("orphan") }),
	(e) => e.httpStatus === 400 && e.message.includes(unknown));
await assert.rejects(thin.blockSubmitRaw(new Uint8Array([2, 1, 0])), (e) => e.httpStatus === 400 && e.message.length > 10);

console.log("ok");
