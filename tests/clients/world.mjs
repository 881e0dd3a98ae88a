// What the tests share: who acts, how a call is made (each over a connection of its own), how a refusal must look.
// The cluster is given by the environment: CONCLAVE_URL (public URL), CONCLAVE_RELAY (the relay's control, an
// http URL), NODE_EXTRA_CA_CERTS (the cluster's authority).
import assert from 'node:assert/strict';
import crypto from 'node:crypto';
import http from 'node:http';
import https from 'node:https';
import tls from 'node:tls';
import {CapabilityAgent, KmsClient} from '@digitalbazaar/webkms-client';
import {Ed25519Signature2020} from '@digitalbazaar/ed25519-signature-2020';
import {ZcapClient} from '@digitalbazaar/ezcap';
import {signCapabilityInvocation} from '@digitalbazaar/http-signature-zcap-invoke';

export const PUBLIC = required('CONCLAVE_URL');
const RELAY = required('CONCLAVE_RELAY');
export const KEYSTORES = `${PUBLIC}/kms/keystores`;
export const ID = /^z1[9A][1-9A-HJ-NP-Za-km-z]{20,25}$/;

function required(name) {
  const value = process.env[name];
  if(!value) {
    throw new Error(`${name} is not set; these tests are run by \`cargo test --test clients\``);
  }
  return value;
}

// The client pools connections per agent whatever keepAlive says: only a new agent means a new connection, and
// so, through the relay, the next node.
export const agent = () => new https.Agent({keepAlive: false});

export const identity = name =>
  CapabilityAgent.fromSecret({handle: name, secret: crypto.randomBytes(32)});

export const kms = keystoreId => new KmsClient({keystoreId, httpsAgent: agent()});

export function ezcap(who) {
  const signer = who.getSigner();
  return new ZcapClient({
    SuiteClass: Ed25519Signature2020, invocationSigner: signer, delegationSigner: signer, agent: agent()
  });
}

export const rootOf = url => `urn:zcap:root:${encodeURIComponent(url)}`;
export const inMinutes = minutes => new Date(Date.now() + minutes * 60_000);

export async function newMeter(who) {
  const {data, headers, status} = await ezcap(who).write({
    url: `${PUBLIC}/meters`,
    json: {controller: who.id, product: {id: 'urn:uuid:80a82316-e8c2-11eb-9570-10bf48838a41'}}
  });
  return {meter: data.meter, location: headers.get('location'), status, meterId: `${PUBLIC}/meters/${data.meter.id}`};
}

export async function newKeystore(who, more = {}) {
  const {meterId} = await newMeter(who);
  return KmsClient.createKeystore({
    url: KEYSTORES,
    config: {sequence: 0, controller: who.id, meterId, kmsModule: 'ssm-v1', ...more},
    invocationSigner: who.getSigner(), httpsAgent: agent()
  });
}

export const newKey = (who, keystore, type, more = {}) =>
  kms(keystore.id).generateKey({type, invocationSigner: who.getSigner(), ...more});

export const sign = (who, keyId, data, capability) =>
  kms().sign({keyId, data, capability, invocationSigner: who.getSigner()});

export const bytes = text => new TextEncoder().encode(text);

// Delegates `capability` (an object, or a root id with `invocationTarget`).
// Half an hour, or as long as the parent: a child that is made a second later must not outlive it.
export const delegate = (from, to, options) =>
  ezcap(from).delegate({controller: to.id, expires: options.capability?.expires ?? inMinutes(30), ...options});

// Expects the call to fail as table 1.3 of the contract says; returns the body.
export async function refused(call, {status, name, message, cause, causeName}) {
  let error;
  try {
    await call;
  } catch(e) {
    error = e;
  }
  assert(error, 'the call should have been refused');
  assert.equal(error.status, status, `${error.message} ${JSON.stringify(error.data)}`);
  const body = error.data ?? error.cause?.data;
  checkErrorBody(body, {status, name, message, cause, causeName});
  return body;
}

export function checkErrorBody(body, {status, name, message, cause, causeName}) {
  assert.equal(typeof body, 'object', 'an error has a JSON body');
  const told = JSON.stringify(body);
  for(const key of ['name', 'message', 'details', 'cause', 'type']) {
    assert(key in body, `${key} is missing in ${told}`);
  }
  assert.equal(body.type, body.name, told);
  assert(!told.includes('"stack"'), 'a stack was sent');
  assert.equal(body.details.httpStatusCode, status, told);
  if(name) {
    assert.equal(body.name, name, told);
  }
  if(message instanceof RegExp) {
    assert.match(body.message, message);
  } else if(message) {
    assert.equal(body.message, message, told);
  }
  if(cause) {
    assert.equal(body.cause?.message, cause, told);
  }
  if(causeName) {
    assert.equal(body.cause?.name, causeName, told);
  }
}

// Authorization failures share everything but their cause.
export const NOT_ALLOWED = {status: 403, name: 'NotAllowedError', message: 'Authorization error.'};
export const WRONG_INVOKER = {
  ...NOT_ALLOWED,
  cause: 'The capability controller does not match the verification method (or its controller) used to invoke.'
};
export const REVOKED = {...NOT_ALLOWED, cause: 'One or more capabilities in the chain have been revoked.'};

// A request as its headers and body, signed by the npm package, to be changed or sent again.
export async function signed({who, url, method = 'POST', json, action, capability, created, expires, headers = {}}) {
  const out = await signCapabilityInvocation({
    url, method, headers: {accept: 'application/ld+json, application/json', ...headers}, json, created, expires,
    capability: capability ?? rootOf(url.replace(/\/keys(\/.*)?$/, '')),
    invocationSigner: who.getSigner(), capabilityAction: action
  });
  return {url, method, headers: out, body: json === undefined ? undefined : JSON.stringify(json)};
}

// The bytes of a request, once and for all.
export function wire({url, method, headers, body}) {
  const {host, pathname, search} = new URL(url);
  const lines = [`${method} ${pathname}${search} HTTP/1.1`];
  for(const [name, value] of Object.entries({host, ...headers, connection: 'close'})) {
    lines.push(`${name}: ${value}`);
  }
  if(body !== undefined) {
    lines.push(`content-length: ${Buffer.byteLength(body)}`);
  }
  return Buffer.from(`${lines.join('\r\n')}\r\n\r\n${body ?? ''}`);
}

// Sends bytes over a new connection; {status, headers, body, json}.
export function sendBytes(request) {
  const {hostname, port} = new URL(PUBLIC);
  return new Promise((resolve, reject) => {
    const socket = tls.connect({host: hostname, port, servername: hostname}, () => socket.write(request));
    const parts = [];
    socket.setTimeout(10_000, () => socket.destroy(new Error('no answer within 10 s')));
    socket.on('data', part => parts.push(part));
    socket.on('error', reject);
    socket.on('end', () => {
      const all = Buffer.concat(parts);
      const end = all.indexOf('\r\n\r\n');
      const [first, ...lines] = all.subarray(0, end).toString('latin1').split('\r\n');
      const headers = Object.fromEntries(lines.map(line => {
        const colon = line.indexOf(':');
        return [line.slice(0, colon).toLowerCase(), line.slice(colon + 1).trim()];
      }));
      let body = all.subarray(end + 4);
      if(headers['transfer-encoding'] === 'chunked') {
        body = unchunk(body);
      }
      body = body.toString();
      let json;
      try {
        json = JSON.parse(body);
      } catch{
        // Not every answer has a JSON body.
      }
      resolve({status: Number(first.split(' ')[1]), headers, body, json});
      socket.end();
    });
  });
}

export const send = request => sendBytes(wire(request));

function unchunk(body) {
  const parts = [];
  for(let at = 0; ;) {
    const line = body.indexOf('\r\n', at);
    const length = parseInt(body.subarray(at, line).toString(), 16);
    if(!length) {
      return Buffer.concat(parts);
    }
    parts.push(body.subarray(line + 2, line + 2 + length));
    at = line + 2 + length + 2;
  }
}

function control(method, path) {
  return new Promise((resolve, reject) => {
    const request = http.request(`${RELAY}${path}`, {method, agent: false}, response => {
      const parts = [];
      response.on('data', part => parts.push(part));
      response.on('end', () => resolve(JSON.parse(Buffer.concat(parts).toString())));
    });
    request.on('error', reject);
    request.end();
  });
}

// How many connections each node got since the relay began.
export const counts = async () => (await control('GET', '/counts')).connections;

// From now on every connection goes to this node (from 0); `through(undefined)` takes turns again.
export const through = node => control('POST', node === undefined ? '/turns' : `/pin/${node}`);

// Runs `action` with every connection going to one node.
export async function at(node, action) {
  await through(node);
  try {
    return await action();
  } finally {
    await through(undefined);
  }
}

// Runs `action` with the clock of request signatures standing still: what it signs twice is the same bytes.
export async function inOneSecond(action) {
  const real = Date.now;
  const now = real();
  Date.now = () => now;
  try {
    return await action();
  } finally {
    Date.now = real;
  }
}

// The same derivation by the same client within one second is the same bytes, and those are served by one node only.
export const nextSecond = () => pause(1_000 - Date.now() % 1_000 + 5);

export const pause = ms => new Promise(resolve => setTimeout(resolve, ms));
