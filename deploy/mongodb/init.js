// Makes the one-node replica set (transactions and change streams need one) and the program's user. Safe to run again.
const admin = connect(`mongodb://root:${encodeURIComponent(process.env.MONGODB_ROOT_PASSWORD)}@mongodb:27017/admin?directConnection=true`);

try {
  admin.adminCommand({ replSetGetStatus: 1 }).ok || init();
} catch (e) {
  if (e.codeName !== "NotYetInitialized") throw e;
  init();
}

function init() {
  admin.adminCommand({ replSetInitiate: { _id: "rs0", members: [{ _id: 0, host: "mongodb:27017" }] } });
}

while (!admin.hello().isWritablePrimary) sleep(200);

const app = admin.getSiblingDB("app");
const pwd = process.env.MONGODB_PASSWORD;
const roles = [{ role: "readWrite", db: "app" }, { role: "dbAdmin", db: "app" }];
if (app.getUser("app")) app.updateUser("app", { pwd, roles });
else app.createUser({ user: "app", pwd, roles });
