import { scenarios as api } from './api.js';
import { scenarios as channels } from './channels.js';
import { scenarios as connection } from './connection.js';
import { scenarios as echo } from './echo.js';
import { scenarios as presence } from './presence.js';
import { scenarios as users } from './users.js';

// What every official client must be able to do, in Node and in a browser.
export const scenarios = [...connection, ...channels, ...presence, ...users, ...api, ...echo];
