local buffer = require("string.buffer")
local b, sum = buffer.new(), 0
for round = 1, 40 do
  for i = 1, 200000 do b:put("item ", i, "; ") end
  sum = sum + #b
  while #b > 0 do sum = sum + #b:get(1000) end
end
print(sum)
