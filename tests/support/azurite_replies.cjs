// Loaded into Azurite by storage_servers.py, before it starts.
//
// Azure's client for C++ announces each PUT and waits for "100 Continue", with an empty body, too.
// Node answers that at once, and where the final answer is ready a moment later (a lease of what is
// not there: 404), the client may find both in one read. It then misreads the chunked body of the
// second, waits until the server closes the connection after six seconds, and asks again. So an
// empty body is not waved through: there is only the final answer, as HTTP allows.
"use strict";

const { ServerResponse } = require("http");

const writeContinue = ServerResponse.prototype.writeContinue;

ServerResponse.prototype.writeContinue = function (...given) {
  if (this.req.headers["content-length"] === "0") {
    this._expect_continue = false; // else Node closes the connection after the answer
    return;
  }
  writeContinue.apply(this, given);
};
