// Drives npm dcmjs-dimse for the tests: JSON lines {number, do, …} in, {number, …} out. Everything on the wire is the
// library's own; of ours is only what it is told to ask for, and that what it receives is written down as it came.
//
// argv: folder of the library. `send` opens one association and makes its requests; `listen` opens a port.
const { readFileSync, writeFileSync } = require('node:fs');
const { join } = require('node:path');
const { createInterface } = require('node:readline');

const dimse = require(process.argv[2]);
const { Client, Dataset, Implementation, Scp, Server, Transcoding, requests, responses } = dimse;
const { PresentationContextResult, SopClass } = dimse.constants;
dimse.log.disableAll();

const PATIENT_ROOT = { find: '1.2.840.10008.5.1.4.1.2.1.1', move: '1.2.840.10008.5.1.4.1.2.1.2', get: '1.2.840.10008.5.1.4.1.2.1.3' };
const COMMITMENT = '1.2.840.10008.1.20.1.1'; // the well-known instance

const say = (told) => process.stdout.write(`${JSON.stringify(told)}\n`);
const secured = (tls) =>
  tls && { key: readFileSync(tls.key), cert: readFileSync(tls.certificate), ca: readFileSync(tls.authorities),
    requestCert: true, rejectUnauthorized: true, ...tls.more };

// Where an object's bytes go before they are read: the library's place for it, on both sides of an association.
const Network = Object.getPrototypeOf(Scp);
const read = Network.prototype.createDatasetFromStoreWritableStream;
let keep;
let kept = 0;
Network.prototype.createDatasetFromStoreWritableStream = function written(stream, context, callback) {
  kept += 1;
  const name = join(keep, `${process.pid}-${kept}`);
  writeFileSync(`${name}.bytes`, stream.toBuffer());
  writeFileSync(`${name}.json`, JSON.stringify({
    sop_class: this.dimse.getAffectedSopClassUid(), uid: this.dimse.getAffectedSopInstanceUid(),
    syntax: context.getAcceptedTransferSyntaxUid(),
  }));
  read.call(this, stream, context, callback);
};

function taken(request, callback) {
  const response = responses.CStoreResponse.fromRequest(request);
  response.setStatus(0x0000);
  callback(response);
}

class Receiver extends Scp {
  associationRequested(association) {
    const { syntaxes } = this.constructor;
    for (const { context } of association.getPresentationContexts()) {
      const common = context.getTransferSyntaxUids().find((one) => !syntaxes || syntaxes.includes(one));
      if (common) context.setResult(PresentationContextResult.Accept, common);
      else context.setResult(PresentationContextResult.RejectTransferSyntaxesNotSupported);
    }
    this.sendAssociationAccept();
  }
  associationReleaseRequested() { this.sendAssociationReleaseResponse(); }
  cStoreRequest(request, callback) { taken(request, callback); }
  nEventReportRequest(request, callback) {
    reports.push(told(request));
    const response = responses.NEventReportResponse.fromRequest(request);
    response.setStatus(0x0000);
    callback(response);
  }
  cEchoRequest(request, callback) {
    const response = responses.CEchoResponse.fromRequest(request);
    response.setStatus(0x0000);
    callback(response);
  }
  abort() {}
}
const reports = [];
const told = (request) => ({ event: request.getEventTypeId(), said: request.getDataset().getElements() });

const kinds = {
  echo: () => new requests.CEchoRequest(),
  store: ({ file, syntaxes = [] }) => {
    const request = new requests.CStoreRequest(file);
    request.setAdditionalTransferSyntaxes(syntaxes);
    return request;
  },
  find: () => new requests.CFindRequest(),
  move: ({ destination }) => {
    const request = new requests.CMoveRequest();
    request.getCommandDataset().setElement('MoveDestination', destination);
    return request;
  },
  get: () => new requests.CGetRequest(),
  commit: () => new requests.NActionRequest(SopClass.StorageCommitmentPushModel, COMMITMENT, 1),
};

function made({ kind, model, keys, ...more }) {
  const request = kinds[kind](more);
  if (model === 'patient') request.setAffectedSopClassUid(PATIENT_ROOT[kind]);
  if (keys) request.setDataset(new Dataset(keys));
  return request;
}

const numbers = (response) => (response.getCompleted
  ? { remaining: response.getRemaining(), completed: response.getCompleted(), failed: response.getFailures(), warning: response.getWarnings() }
  : {});

function send({ port, calling, called, pdu = 16384, tls, awaits = 0, identity, window, cancelAfter, asked, written }) {
  return new Promise((resolve) => {
    Implementation.setMaxPduLength(pdu);
    const client = new Client();
    const answer = { answers: asked.map(() => []), reports: [], contexts: [] };
    const all = asked.map(made);
    all.forEach((request, place) => {
      request.on('response', (response) => {
        answer.answers[place].push({
          status: response.getStatus(), comment: response.getErrorComment() || '',
          said: response.hasDataset() ? response.getDataset().getElements() : null, ...numbers(response),
        });
        if (cancelAfter && answer.answers[place].length === cancelAfter) client.cancel(request);
      });
      client.addRequest(request);
    });
    client.on('associationAccepted', (association) => {
      answer.contexts = association.getPresentationContexts().map(({ context }) => [
        context.getAbstractSyntaxUid(), context.getResult(), context.getAcceptedTransferSyntaxUid() || null]);
    });
    client.on('associationRejected', (why) => { answer.rejected = why; });
    client.on('networkError', (error) => { answer.error = String(error.message); });
    client.on('cStoreRequest', taken);
    client.on('nEventReportRequest', (request, callback) => {
      answer.reports.push(told(request));
      const response = responses.NEventReportResponse.fromRequest(request);
      response.setStatus(0x0000);
      callback(response);
    });
    client.on('closed', () => {
      if (written) { // what the library made of each object that it sent
        all.forEach((request, place) => {
          if (request instanceof requests.CStoreRequest && answer.answers[place].length) {
            writeFileSync(join(written, `${place}.bytes`), request.getDataset().getDenaturalizedDataset());
          }
        });
      }
      resolve(answer);
    });
    client.send('127.0.0.1', port, calling, called, {
      securityOptions: secured(tls), userIdentity: identity,
      asyncOps: window && { maxAsyncOpsInvoked: window, maxAsyncOpsPerformed: window },
    });
    const line = client.network; // leaves once so many reports came, not after a time
    const release = line.sendAssociationReleaseRequest.bind(line);
    line.sendAssociationReleaseRequest = function leave() {
      if (answer.reports.length >= awaits) release();
      else setTimeout(leave, 20);
    };
  });
}

function listen({ port, tls, syntaxes }) {
  return new Promise((resolve) => {
    const server = new Server(class extends Receiver { static syntaxes = syntaxes; });
    server.on('listening', () => resolve({}));
    server.on('networkError', (error) => resolve({ error: String(error.message) }));
    server.listen(port, { securityOptions: secured(tls) });
  });
}

const does = { send, listen, reports: async () => ({ reports }), keep: async ({ folder }) => { keep = folder; return {}; } };

(async () => {
  await Transcoding.initializeAsync();
  for await (const line of createInterface({ input: process.stdin })) {
    const { number, do: what, ...args } = JSON.parse(line);
    does[what](args).then((answer) => say({ number, ...answer }), (error) => say({ number, error: String(error.stack) }));
  }
  process.exit(0);
})();
