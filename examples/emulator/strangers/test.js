// Numbers, strings, closures, regular expressions, sorting and exceptions.
function sieve(n) {
    var composite = [], count = 0;
    for (var i = 2; i <= n; i++) {
        if (composite[i]) continue;
        count++;
        for (var j = i * i; j <= n; j += i) composite[j] = true;
    }
    return count;
}
print(sieve(50000));
var counter = (function () { var n = 0; return function () { return ++n; }; })();
for (var i = 0; i < 1000; i++) counter();
print(counter());
print([5, 3, 11, 1].sort(), [5, 3, 11, 1].sort(function (a, b) { return a - b; }));
print(0.1 + 0.2, 1 / 3, 1e21, -0, 0 / 0, 1 / 0, Math.pow(2, 0.5), parseInt('ff', 16));
print('the quick brown fox'.replace(/(\w+) (\w+)/, '$2 $1'), /a+(b*)/.exec('xaabbc'));
print(JSON.stringify({ a: [1, 'x', null], b: { c: true } }));
try { null.field; } catch (error) { print(error instanceof TypeError); }
print(new Date(0).toISOString());
